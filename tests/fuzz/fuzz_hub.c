/* fuzz_hub.c - libFuzzer: any bytes as the config.json of a hub's folder, and what it says as a config of mala's.
 * Seeds: one in timm's words, with the labels of transformers. */
#include "fuzz.h"

#include <string.h>

#include "lib/hub.h"

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    static const char *const seeds[] = {
        "{\"architecture\": \"mavit_t\", \"num_classes\": 2, \"num_features\": 2048, \"global_pool\": \"avg\", "
        "\"label_names\": [\"a\", \"b\"], \"id2label\": {\"0\": \"a\"}, \"pretrained_cfg\": {\"input_size\": [3, 224, "
        "224], \"interpolation\": \"bicubic\", \"crop_pct\": 0.875, \"crop_mode\": \"center\", \"mean\": [0.5, 0.5, "
        "0.5], \"std\": [0.2, 0.2, 0.2], \"num_classes\": 2, \"fixed_input_size\": false}}",
        "{\"architecture\": \"custom\", \"model_args\": {\"dims\": [8, 8, 16, 16], \"depths\": [1, 1, 1, 1], "
        "\"heads\": [1, 1, 2, 2], \"mlp_ratio\": 4, \"projection\": 16, \"attention\": [\"mala\", \"softmax\", "
        "\"linear\", \"inline\"]}}"};
    for (int i = 0; i < 2; i++) fuzz_seed(i, seeds[i], strlen(seeds[i]));
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    HubConfig h;
    Err err = {0};
    if (hub_read_text(&h, "fuzz", (const char *)data, size, &err)) {
        Config c;
        if (!config_load_values(&c, h.values, h.value_count, (Settings){0}, &err)) /* what is missing has no place */
            fuzz_check_error(&err, strncmp(err.text, "config: ", 8) == 0 ? "config" : "fuzz");
        config_free(&c);
    } else {
        fuzz_check_error(&err, "fuzz");
    }
    hub_free(&h);
    return 0;
}
