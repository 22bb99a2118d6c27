/* test_sizes.c - what info, plan and import say of a network's size, beside counts by hand and beside each other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "colours.h"
#include "io/tensor_file.h"
#include "program.h"

#define NETWORK \
    "--model custom 'model.dims=[8,16,24,32]' 'model.depths=[1,2,1,3]' 'model.heads=[1,2,3,4]' model.projection=48 " \
    "model.mlp_ratio=2.5 --img-size 64 "

static int make_folder(void **state) {
    (void)state;
    folder_make();
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    folder_remove();
    return 0;
}

#define KINDS \
    "--model custom 'model.dims=[8,16,24,32]' 'model.depths=[1,1,1,1]' 'model.heads=[1,2,3,4]' input.size=96,64 " \
    "model.attention=inline,softmax,linear,mala "

static cJSON *said(const char *arguments) {
    EXPECT(0, arguments);
    return json_line(output);
}

/* ---- info ---- */

static const int64_t dims[4] = {8, 16, 24, 32}, depths[4] = {1, 2, 1, 3};

/* Weights and biases of a convolution from a to b channels; with the batch norm behind it. */
static int64_t conv(int64_t a, int64_t b, int64_t taps) { return a * b * taps + b; }
static int64_t conv_norm(int64_t a, int64_t b, int64_t taps) { return conv(a, b, taps) + 2 * b; }

static int64_t block_by_hand(int64_t c) {
    const int64_t hidden = c * 5 / 2, depthwise = 10 * c, norms = 4 * c, gammas = 2 * c;
    const int64_t attention = conv(c, 4 * c, 1) + 26 * c + conv(c, c, 1);
    return depthwise + norms + gammas + attention + conv(c, hidden, 1) + 10 * hidden + conv(hidden, c, 1);
}

static int64_t parameters_by_hand(int64_t classes) {
    int64_t n = conv_norm(3, 4, 9) + 2 * conv_norm(4, 4, 9) + conv_norm(4, 8, 9);
    for (int i = 0; i < 4; i++) {
        n += depths[i] * block_by_hand(dims[i]);
        if (i < 3) n += conv_norm(dims[i], dims[i + 1], 9);
    }
    return n + conv_norm(32, 48, 1) + conv(48, classes, 1);
}

static void test_parameters_by_hand(void **state) {
    (void)state;
    cJSON *json = said("info " NETWORK "--json");
    assert_int_equal((int64_t)number_of(json, "parameters"),
                     parameters_by_hand(1000)); /* without weights: ImageNet's */
    assert_int_equal((int)number_of(json, "classes"), 1000);
    const cJSON *size = cJSON_GetObjectItemCaseSensitive(json, "size");
    assert_true(cJSON_GetArrayItem(size, 0)->valuedouble == 64 && cJSON_GetArrayItem(size, 1)->valuedouble == 64);
    cJSON_Delete(json);
}

/* The rows add up to what is said of the whole; a batch multiplies what depends on pictures, and nothing else. */
static void test_rows_add_up(void **state) {
    (void)state;
    cJSON *one = said("info " NETWORK "--json"), *four = said("info " NETWORK "--json --batch 4"),
          *all = said("info " NETWORK "--json --all"), *const each[] = {one, four, all};
    double sums[3];
    for (int i = 0; i < 3; i++) {
        double parameters = 0, macs = 0, bytes = 0;
        const cJSON *layers = cJSON_GetObjectItemCaseSensitive(each[i], "layers");
        for (const cJSON *l = layers->child; l; l = l->next) {
            parameters += number_of(l, "parameters"), macs += number_of(l, "macs"),
                bytes += number_of(l, "output_bytes");
            const cJSON *shape = cJSON_GetObjectItemCaseSensitive(l, "output");
            assert_int_equal((int)cJSON_GetArrayItem(shape, 0)->valuedouble, i == 1 ? 4 : 1);
        }
        assert_true(parameters == number_of(each[i], "parameters"));
        assert_float_equal(macs, number_of(each[i], "macs"), 1e-9 * macs);
        sums[i] = bytes;
        assert_true(bytes > number_of(each[i], "activation_bytes"));
        assert_true(number_of(each[i], "activation_bytes_without_reuse") > number_of(each[i], "activation_bytes"));
        assert_true(number_of(each[i], "training_activation_bytes") > 2 * number_of(each[i], "activation_bytes"));
    }
    assert_true(sums[0] == sums[2] && sums[1] == 4 * sums[0]); /* by blocks or by steps */
    assert_int_equal((int)number_of(one, "batch"), 1);
    assert_int_equal((int)number_of(four, "batch"), 4);
    assert_true(number_of(four, "parameters") == number_of(one, "parameters"));
    assert_true(number_of(four, "macs") == 4 * number_of(one, "macs"));
    assert_true(cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(all, "layers")) > 60);
    for (int i = 0; i < 3; i++) cJSON_Delete(each[i]);
}

/* A row a block, and the parts between and behind them, each with its own parameters and map. */
static void test_rows_of_a_network(void **state) {
    (void)state;
    const struct {
        const char *name;
        int64_t parameters;
        int side, channels; /* of its output; side 0: it has none */
    } rows[] = {{"normalize", 0, 64, 3},
                {"patch_embed", conv_norm(3, 4, 9) + 2 * conv_norm(4, 4, 9) + conv_norm(4, 8, 9), 16, 8},
                {"layers.0.blocks.0", block_by_hand(8), 16, 8},
                {"layers.0.downsample", conv_norm(8, 16, 9), 8, 16},
                {"layers.1.blocks.0", block_by_hand(16), 8, 16},
                {"layers.1.blocks.1", block_by_hand(16), 8, 16},
                {"layers.1.downsample", conv_norm(16, 24, 9), 4, 24},
                {"layers.2.blocks.0", block_by_hand(24), 4, 24},
                {"layers.2.downsample", conv_norm(24, 32, 9), 2, 32},
                {"layers.3.blocks.0", block_by_hand(32), 2, 32},
                {"layers.3.blocks.1", block_by_hand(32), 2, 32},
                {"layers.3.blocks.2", block_by_hand(32), 2, 32},
                {"proj", conv(32, 48, 1), 2, 48},
                {"norm", 2 * 48, 2, 48},
                {"silu", 0, 2, 48},
                {"mean_pool", 0, 0, 48},
                {"head", conv(48, 1000, 1), 0, 1000},
                {"softmax", 0, 0, 1000}};
    cJSON *json = said("info " NETWORK "--json"), *layers = cJSON_GetObjectItemCaseSensitive(json, "layers");
    assert_int_equal(cJSON_GetArraySize(layers), COUNTOF(rows));
    for (size_t i = 0; i < COUNTOF(rows); i++) {
        const cJSON *l = cJSON_GetArrayItem(layers, (int)i), *shape = cJSON_GetObjectItemCaseSensitive(l, "output");
        assert_string_equal(cJSON_GetObjectItemCaseSensitive(l, "name")->valuestring, rows[i].name);
        if ((int64_t)number_of(l, "parameters") != rows[i].parameters)
            fail_msg("%s has other parameters", rows[i].name);
        const int rank = cJSON_GetArraySize(shape);
        assert_int_equal(rank, rows[i].side ? 4 : 2);
        assert_int_equal((int)cJSON_GetArrayItem(shape, rank - 1)->valuedouble, rows[i].channels);
        if (rows[i].side) assert_int_equal((int)cJSON_GetArrayItem(shape, 1)->valuedouble, rows[i].side);
    }
    cJSON_Delete(json);
}

/* ---- plan ---- */

static double sum_of(const cJSON *network) {
    static const char *const parts[] = {"weights",     "gradients", "moments",   "average", "cast",   "statistics",
                                        "activations", "constants", "workspace", "inputs",  "staging"};
    double sum = 0;
    for (size_t i = 0; i < COUNTOF(parts); i++) sum += number_of(network, parts[i]);
    return sum;
}

static void test_plan_adds_up(void **state) {
    (void)state;
    cJSON *json = said("plan " NETWORK "--device cpu --json --train --batch 6 train.ema=true eval.batch_size=3"),
          *train = cJSON_GetObjectItemCaseSensitive(json, "training"),
          *eval = cJSON_GetObjectItemCaseSensitive(json, "evaluation");
    const double weights = number_of(train, "weights"), exact = 4 * (double)parameters_by_hand(1000);
    assert_true(weights >= exact && weights < exact * 1.05); /* each begins on a line of its own */
    assert_true(number_of(train, "gradients") == weights && number_of(train, "moments") == 2 * weights);
    assert_true(number_of(train, "average") == weights && number_of(train, "cast") == 0);
    assert_true(number_of(train, "inputs") >= 6 * 64 * 64 * 3);
    assert_true(number_of(eval, "gradients") + number_of(eval, "moments") + number_of(eval, "average") == 0);
    assert_true(number_of(eval, "weights") == weights &&
                number_of(eval, "statistics") == number_of(train, "statistics"));
    assert_int_equal((int)number_of(train, "batch"), 6);
    assert_int_equal((int)number_of(eval, "batch"), 3);
    assert_true(number_of(train, "total") == sum_of(train) && number_of(eval, "total") == sum_of(eval));
    assert_true(number_of(json, "total") == sum_of(train) + sum_of(eval));
    cJSON_Delete(json);
    json = said("plan " NETWORK "--device cpu --json --train --batch 6");
    train = cJSON_GetObjectItemCaseSensitive(json, "training");
    assert_true(number_of(train, "average") == 0);
    cJSON *by_config = said("plan " NETWORK "--device cpu --json --train train.batch_size=7");
    assert_int_equal((int)number_of(cJSON_GetObjectItemCaseSensitive(by_config, "training"), "batch"), 7);
    cJSON_Delete(by_config);
    assert_int_equal((int)number_of(cJSON_GetObjectItemCaseSensitive(json, "evaluation"), "batch"), 6);
    cJSON_Delete(json);
}

/* Two ways to the same number. */
static void test_plan_is_what_info_says(void **state) {
    (void)state;
    cJSON *plan = said("plan " NETWORK "--device cpu --json --batch 5"),
          *info = said("info " NETWORK "--json --batch 5"),
          *network = cJSON_GetObjectItemCaseSensitive(plan, "inference");
    assert_null(cJSON_GetObjectItemCaseSensitive(plan, "training"));
    assert_int_equal((int)number_of(network, "batch"), 5);
    assert_true(number_of(plan, "total") == number_of(network, "total"));
    const double bytes = number_of(info, "activation_bytes");
    assert_true(number_of(network, "activations") >= bytes && number_of(network, "activations") < 1.5 * bytes);
    cJSON_Delete(plan);
    plan = said("plan " NETWORK "--device cpu --json --batch 5 --train");
    const double training = number_of(cJSON_GetObjectItemCaseSensitive(plan, "training"), "activations");
    assert_float_equal(training, number_of(info, "training_activation_bytes"), 0.05 * training);
    cJSON_Delete(plan);
    cJSON_Delete(info);
}

/* ---- bench ---- */

/* Figures of one measurement follow from its time and from what info counts. */
static void test_figures_of_bench_fit(void **state) {
    (void)state;
    cJSON *info = said("info " NETWORK "--json --batch 3"),
          *json = said("bench infer " NETWORK "--device cpu --json --rounds 5 --ops --batch 3");
    const double ms = number_of(json, "ms"), macs = number_of(info, "macs"), rate = 3e3 / ms, gflops = 2e-6 * macs / ms;
    assert_true(ms > 0 && number_of(json, "ms_best") > 0 && number_of(json, "ms_best") <= ms);
    assert_float_equal(number_of(json, "images_per_s"), rate, 1e-6 * rate);
    assert_float_equal(number_of(json, "gflops"), gflops, 1e-6 * gflops);
    assert_int_equal((int)number_of(json, "batch"), 3);
    double flop = 0, before = 1e9;
    for (const cJSON *op = cJSON_GetObjectItemCaseSensitive(json, "ops")->child; op; op = op->next) {
        assert_true(number_of(op, "calls") >= 1 && number_of(op, "ms") <= before);
        assert_true(number_of(op, "gb_least") > 0);
        before = number_of(op, "ms");
        flop += 1e9 * number_of(op, "gflop");
    }
    assert_float_equal(flop, 2 * macs, 0.02 * flop);
    cJSON_Delete(json);
    json = said("bench train " NETWORK "--device cpu --json --rounds 1 --batch 3");
    const double step = number_of(json, "gflops") * number_of(json, "ms") * 1e6 / 2;
    assert_true(step > 2 * macs && step < 4 * macs); /* forward, and two products backward */
    cJSON_Delete(json);
    cJSON_Delete(info);
    json = said("bench copy --device cpu --json --rounds 3");
    assert_float_equal(number_of(json, "gb_per_s") * number_of(json, "ms"), 2e-6 * (64 << 20),
                       0.02 * 2e-6 * (64 << 20));
    cJSON_Delete(json);
}

/* ---- what figures are of ---- */

static void test_figures_say_of_what(void **state) {
    (void)state;
    static const char *const commands[] = {"info " KINDS "--json", "plan " KINDS "--device cpu --json",
                                           "bench " KINDS "--device cpu --json --rounds 1"};
    static const char *const kinds[4] = {"inline", "softmax", "linear", "mala"};
    for (size_t i = 0; i < COUNTOF(commands); i++) {
        cJSON *json = said(commands[i]);
        const cJSON *attention = cJSON_GetObjectItemCaseSensitive(json, "attention"),
                    *size = cJSON_GetObjectItemCaseSensitive(json, "size");
        assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "model")), "custom");
        assert_int_equal(cJSON_GetArraySize(attention), 4);
        for (int k = 0; k < 4; k++)
            assert_string_equal(cJSON_GetStringValue(cJSON_GetArrayItem(attention, k)), kinds[k]);
        assert_true(cJSON_GetArraySize(size) == 2 && cJSON_GetArrayItem(size, 0)->valuedouble == 96 &&
                    cJSON_GetArrayItem(size, 1)->valuedouble == 64);
        cJSON_Delete(json);
    }
    EXPECT(0, "bench " KINDS "--device cpu --rounds 1");
    expect_text(output, "infer of custom, 96 x 64, batch 1 on ");
}

/* A sum that is more than there is, is called that. */
static void test_plan_says_what_is_too_little(void **state) {
    (void)state;
    setenv("MALA_MEMORY", "512K", 1);
    EXPECT(0, "plan " NETWORK "--device cpu");
    expect_text(output, "(MALA_MEMORY): too little\n");
    setenv("MALA_MEMORY", "1G", 1);
    EXPECT(0, "plan " NETWORK "--device cpu");
    unsetenv("MALA_MEMORY");
    expect_text(output, "(MALA_MEMORY)\n");
}

/* Another spelling of a command's own flag is no second flag. */
static void test_help_has_no_flag_twice(void **state) {
    (void)state;
    EXPECT(0, "help plan");
    expect_text(output, "--batch N");
    assert_null(strstr(output, "--batch-size N"));
    assert_null(strstr(output, "--img-size N"));
    EXPECT(0, "help train");
    expect_text(output, "--batch-size N");
    expect_text(output, "--img-size N");
    EXPECT(0, "help bench");
    expect_text(output, "[infer|train|peak|copy]");
}

/* ---- import ---- */

/* Counts of what a file holds: trainable scalars are those that info counts, statistics are none. */
static void test_import_counts(void **state) {
    (void)state;
    char data[200], want[100], path[200];
    Err err = {0};
    TensorFile f;
    snprintf(data, sizeof data, "%s/data", folder);
    colours_make(data, 2, 1);
    EXPECT(0, "train data.path=$T/data output=$T/run " LEARNS "sched.epochs=1 sched.warmup_epochs=0 -q");
    cJSON *info = said("info $T/run --json");
    snprintf(path, sizeof path, "%s/run/weights/best.safetensors", folder);
    if (!tensor_file_open(&f, path, NULL, &err)) fail_msg("%s", err.text);
    snprintf(want, sizeof want, ": %zu tensors, %.0f parameters\n", f.tensor_count, number_of(info, "parameters"));
    tensor_file_close(&f);
    EXPECT(0, "import $T/run $T/a.safetensors");
    expect_text(output, want);
    EXPECT(0, "import $T/run $T/a.pth");
    expect_text(output, want);
    assert_int_equal((int)number_of(info, "classes"), 8);
    cJSON_Delete(info);
    EXPECT(0, "import $T/run $T/bare.pth --key ''"); /* no names: numbers */
    EXPECT(0, "infer $T/data/val/red_bar --weights $T/bare.pth --config $T/run/config.json --csv --topk 8");
    for (int rank = 0, class, label; rank < 8; rank++) {
        const char *row = output;
        for (int i = 0; i <= rank; i++) row = strchr(row, '\n') + 1;
        assert_int_equal(sscanf(strstr(row, ".png") + 4, ",%*d,%d,%d,", &class, &label), 2);
        assert_int_equal(class, label);
    }
    EXPECT(0, "export $T/bare.pth $T/bare.safetensors --config $T/run/config.json"); /* which are no names */
    shell("! grep -q mala.classes bare.safetensors && grep -q mala.config bare.safetensors");
    /* as many names as the head has classes, and no others */
    shell("printf 'a\\nb\\nc\\nd\\n\\ne\\nf\\ng\\nh\\n' >eight && head -n 8 eight >seven");
    EXPECT(0, "import $T/run $T/named.safetensors --classes $T/eight");
    EXPECT(0, "infer $T/data/val/red_bar --weights $T/named.safetensors --topk 8");
    expect_text(output, "h ");
    EXPECT(3, "import $T/run $T/x.safetensors --classes $T/seven");
    expect_text(errors, "seven: names 7 classes, head.weight in ");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parameters_by_hand),     cmocka_unit_test(test_rows_add_up),
        cmocka_unit_test(test_rows_of_a_network),      cmocka_unit_test(test_plan_adds_up),
        cmocka_unit_test(test_plan_is_what_info_says), cmocka_unit_test(test_figures_of_bench_fit),
        cmocka_unit_test(test_figures_say_of_what),    cmocka_unit_test(test_plan_says_what_is_too_little),
        cmocka_unit_test(test_help_has_no_flag_twice), cmocka_unit_test(test_import_counts),
    };
    return cmocka_run_group_tests_name("sizes", tests, make_folder, remove_folder);
}
