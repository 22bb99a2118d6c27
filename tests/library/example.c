/* example.c - a program that uses libmala: classifies pictures.
 *     cc example.c -lmala && ./a.out WEIGHTS PICTURE... */
#include <mala.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    MalaError error;
    MalaModel *model = argc > 2 ? mala_model_open(argv[1], NULL, 0, &error) : NULL;
    MalaRunner *runner = model ? mala_runner_new(model, NULL, &error) : NULL;
    if (!runner) {
        fprintf(stderr, "%s\n", argc > 2 ? error.text : "usage: example WEIGHTS PICTURE...");
        return 1;
    }
    int classes = mala_model_info(model).classes, failed = 0;
    float *prob = malloc((size_t)classes * sizeof *prob);
    for (int i = 2; prob && i < argc; i++) {
        MalaImage image;
        int32_t best;
        if (mala_image_load(&image, argv[i], &error) && mala_run_images(runner, NULL, prob, &image, 1, &error)) {
            mala_top(&best, prob, classes, 1);
            printf("%s: %s %.1f %%\n", argv[i], mala_model_label(model, best), 100 * (double)prob[best]);
        } else {
            fprintf(stderr, "%s\n", error.text);
            failed = 1;
        }
        mala_image_free(&image);
    }
    free(prob);
    mala_runner_free(runner);
    mala_model_close(model);
    return failed;
}
