/* reacts.h - what a test's network makes of its pictures. A test whose network answers every picture alike cannot fail;
 * so each states first what its network tells apart. */
#ifndef MALA_TEST_REACTS_H
#define MALA_TEST_REACTS_H

enum { SCORES_PICTURES = 64, SCORES_CLASSES = 16 };

/* Answers of `mala infer --json` in the order in which they came. */
typedef struct {
    int pictures, classes;
    char path[SCORES_PICTURES][256];
    double score[SCORES_PICTURES][SCORES_CLASSES]; /* by class */
    int best[SCORES_PICTURES];                     /* the class of each that came first */
    char label[SCORES_CLASSES][64];
} Scores;

/* Runs "mala infer <arguments> --json --topk 1000". Fails where a picture's scores are not in falling order, do not sum
 * to 1, or name a class twice. */
void scores_of(Scores *out, const char *arguments);

/* The largest difference of a class's score between two pictures of one answer, or of the same picture in two. */
double scores_apart(const Scores *a, int i, const Scores *b, int k);

/* Fails unless every two pictures from different folders are at least `apart` in some score, and at least `answers`
 * different classes come first. */
void expect_reacts(const Scores *s, double apart, int answers);

/* What evaluation has to find in these answers, where the pictures' folders are the classes' names: worked out here. */
typedef struct {
    double top1, top5, loss;
    int images, right[SCORES_CLASSES], of_class[SCORES_CLASSES];
} Judged;
Judged scores_judge(const Scores *s);

#endif
