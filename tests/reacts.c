#include "reacts.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"
#include "program.h"

static void read_answer(Scores *s, const char *line) {
    cJSON *json = json_line(line);
    const int i = s->pictures++;
    assert_true(i < SCORES_PICTURES);
    const cJSON *image = cJSON_GetObjectItemCaseSensitive(json, "image");
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(json, "predictions");
    assert_true(cJSON_IsString(image) && cJSON_IsArray(list));
    snprintf(s->path[i], sizeof s->path[i], "%s", image->valuestring);
    s->classes = cJSON_GetArraySize(list);
    assert_true(s->classes > 1 && s->classes <= SCORES_CLASSES);
    for (int k = 0; k < s->classes; k++) s->score[i][k] = -1;
    double sum = 0, last = 1;
    for (const cJSON *p = list->child; p; p = p->next) {
        const int class = (int)number_of(p, "class");
        const double score = number_of(p, "score");
        if (p == list->child) s->best[i] = class;
        if (class < 0 || class >= s->classes || s->score[i][class] >= 0)
            fail_msg("class %d stands twice: %s", class, line);
        if (!(score >= 0 && score <= last)) fail_msg("scores do not fall: %s", line);
        snprintf(s->label[class], sizeof s->label[0], "%s", cJSON_GetObjectItemCaseSensitive(p, "label")->valuestring);
        s->score[i][class] = last = score;
        sum += score;
    }
    if (!(fabs(sum - 1) < 1e-5)) fail_msg("scores sum to %g: %s", sum, line);
    cJSON_Delete(json);
}

void scores_of(Scores *out, const char *arguments) {
    char line[1024];
    *out = (Scores){0};
    snprintf(line, sizeof line, "infer %s --json --topk 1000", arguments);
    EXPECT(0, line);
    for (const char *at = output; *at; at = strchr(at, '\n') + 1) read_answer(out, at);
}

double scores_apart(const Scores *a, int i, const Scores *b, int k) {
    double apart = 0;
    for (int c = 0; c < a->classes; c++) apart = fmax(apart, fabs(a->score[i][c] - b->score[k][c]));
    return apart;
}

/* The name of the folder that a picture lies in. */
static void folder_of(char out[64], const char *path) {
    const char *end = strrchr(path, '/'), *start = end;
    while (start > path && start[-1] != '/') start--;
    snprintf(out, 64, "%.*s", (int)(end - start), start);
}

void expect_reacts(const Scores *s, double apart, int answers) {
    bool came[SCORES_CLASSES] = {0};
    int different = 0;
    assert_true(s->pictures > 1);
    for (int i = 0; i < s->pictures; i++) {
        different += !came[s->best[i]];
        came[s->best[i]] = true;
        for (int k = 0; k < i; k++) {
            char one[64], other[64];
            folder_of(one, s->path[i]), folder_of(other, s->path[k]);
            const double d = scores_apart(s, i, s, k);
            if (strcmp(one, other) != 0 && d < apart)
                fail_msg("%s and %s have the same scores but for %.2g: nothing can be seen by them", s->path[i],
                         s->path[k], d);
        }
    }
    if (different < answers) fail_msg("%d different answers to all pictures: nothing can be seen by them", different);
}

Judged scores_judge(const Scores *s) {
    Judged j = {.images = s->pictures};
    for (int i = 0; i < s->pictures; i++) {
        char name[64];
        int label = 0, before = 0;
        folder_of(name, s->path[i]);
        while (label < s->classes && strcmp(s->label[label], name) != 0) label++;
        if (label == s->classes) fail_msg("%s lies in no class's folder", s->path[i]);
        for (int c = 0; c < s->classes; c++) before += s->score[i][c] > s->score[i][label];
        j.top1 += (before == 0) / (double)s->pictures, j.top5 += (before < 5) / (double)s->pictures;
        j.loss -= log(s->score[i][label]) / s->pictures;
        j.of_class[label]++, j.right[label] += before == 0;
    }
    return j;
}
