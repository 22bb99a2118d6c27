/* test_weights.c - names to tensors: the classes of ImageNet, and loads that account for every tensor. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/strings.h"
#include "data/imagenet_names.h"
#include "io/safetensors.h"
#include "io/weights.h"
#include "rule.h"
#include "scratch.h"
#include "task/classify.h"

/* ---- ImageNet ---- */

static int compare_words(const void *a, const void *b) {
    return strcmp((*(const ImagenetName *const *)a)->words, (*(const ImagenetName *const *)b)->words);
}

static void test_imagenet_names(void **state) {
    (void)state;
    const ImagenetName *sorted[IMAGENET_CLASSES];
    for (int i = 0; i < IMAGENET_CLASSES; i++) {
        const ImagenetName *n = sorted[i] = &imagenet_names[i];
        assert_int_equal(strlen(n->id), 9);
        assert_true(n->id[0] == 'n' && strspn(n->id + 1, "0123456789") == 8);
        assert_true(i == 0 || strcmp(imagenet_names[i - 1].id, n->id) < 0);
        assert_true(strlen(n->words) > 1);
    }
    qsort(sorted, IMAGENET_CLASSES, sizeof *sorted, compare_words);
    for (int i = 1; i < IMAGENET_CLASSES; i++) assert_string_not_equal(sorted[i - 1]->words, sorted[i]->words);
}

static void test_imagenet_facts(void **state) {
    (void)state;
    static const struct {
        int index;
        const char *id, *words;
    } known[] = {{0, "n01440764", "tench"},          {7, "n01514668", "cock"},
                 {134, "n02012849", "crane (bird)"}, {207, "n02099601", "golden retriever"},
                 {281, "n02123045", "tabby"},        {517, "n03126707", "crane (machine)"},
                 {817, "n04285008", "sports car"},   {954, "n07753592", "banana"},
                 {999, "n15075141", "toilet tissue"}};
    for (size_t i = 0; i < COUNTOF(known); i++) {
        assert_string_equal(imagenet_names[known[i].index].id, known[i].id);
        assert_string_equal(imagenet_names[known[i].index].words, known[i].words);
        assert_string_equal(imagenet_label(known[i].id), known[i].words);
    }
    assert_string_equal(imagenet_label("tulip"), "tulip");
    assert_string_equal(imagenet_label("n00000001"), "n00000001");
    assert_string_equal(imagenet_label(""), "");
}

/* ---- loads that account for every tensor ---- */

static char folder[SCRATCH_PATH];
static char whole[SCRATCH_PATH + 32], changed[SCRATCH_PATH + 32], heard[1 << 16];
static Backend backend;
static Err err;

#define OK(call) \
    do { \
        if (!(call)) fail_msg("%s: %s", #call, err.text); \
    } while (0)

static State small_state(int classes, unsigned roles) {
    ClassifySpec spec = {.model = {.dims = {8, 8, 16, 16}, .depths = {1, 1, 1, 1}, .heads = {1, 1, 2, 2}, .mlp_ratio = 2,
                                   .projection = 16, .classes = classes, .layer_scale = {1, 1, 1, 1}},
                         .std = {1, 1, 1}};
    ClassifyGraph g = classify_eval_graph(&spec, 1, 32, 32, 0);
    State s;
    OK(state_new(&s, g.graph, &backend, roles, &err));
    classify_graph_free(&g);
    return s;
}

#define MODEL (1u << ROLE_WEIGHT | 1u << ROLE_BUFFER)

static int make_folder(void **state) {
    (void)state;
    scratch_make(folder);
    snprintf(whole, sizeof whole, "%s/whole.safetensors", folder);
    snprintf(changed, sizeof changed, "%s/changed.safetensors", folder);
    OK(backend_open_cpu(&backend, 1, &err));
    State s = small_state(5, MODEL);
    rule_state(&s, "");
    OK(weights_save(whole, &s, ROLE_WEIGHT, NULL, 0, &err));
    state_free(&s);
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    backend.close(&backend);
    scratch_remove(folder);
    return 0;
}

/* Writes "changed": the whole file's tensors but those that fit `drop`, those that fit `flat` with one dimension, and
 * `more` others. */
static void write_changed(const char *drop, const char *flat, const StoredTensor *more, size_t more_count) {
    TensorFile f;
    OK(tensor_file_open(&f, whole, NULL, &err));
    StoredTensor *t = mem_zalloc(f.tensor_count + more_count, sizeof *t);
    size_t n = 0;
    for (size_t i = 0; i < f.tensor_count; i++) {
        if (text_matches_any(drop, f.tensors[i].name)) continue;
        t[n] = f.tensors[i];
        if (text_matches_any(flat, t[n].name)) t[n].rank = 1, t[n].shape[0] = (int64_t)t[n].count;
        n++;
    }
    for (size_t i = 0; i < more_count; i++) t[n++] = more[i];
    OK(safetensors_write(changed, t, n, NULL, 0, &err));
    free(t);
    tensor_file_close(&f);
}

/* Loads "changed" into a model of `classes` classes drawn from seed 3; what was said is in `heard`. */
static bool load(WeightsReport *report, State *s, int classes, HeadPolicy head, const char *allow) {
    TensorFile f;
    FILE *out = tmpfile();
    Log log;
    log_init(&log, out, LOG_INFO, COLOR_NEVER);
    err = (Err){0};
    *s = small_state(classes, MODEL);
    assert_true(state_init(s, 3, NULL));
    assert_true(tensor_file_open(&f, changed, NULL, &err));
    WeightsPolicy policy = {.head = head, .allow = allow, .log = &log};
    bool ok = weights_load(report, s, &f, &policy, &err);
    if (ok) weights_describe(report, &log);
    tensor_file_close(&f);
    rewind(out);
    heard[fread(heard, 1, sizeof heard - 1, out)] = '\0';
    fclose(out);
    return ok;
}

static void expect_heard(const char *part) {
    if (!strstr(heard, part)) fail_msg("'%s' is not in:\n%s", part, heard);
}

static float first_of(const State *s, const char *name) {
    int32_t p = state_find(s, name);
    assert_true(p >= 0);
    return *state_slot(s, s->params[p].buffer ? ROLE_BUFFER : ROLE_WEIGHT, p);
}

static float by_rule(const char *name, const Shape *shape) {
    float *x = mem_zalloc((size_t)shape_count(shape), sizeof *x), first;
    rule_parameter(name, shape, x);
    first = x[0];
    free(x);
    return first;
}

static void test_whole(void **state) {
    (void)state;
    static const int64_t counter = 7;
    StoredTensor more[] = {{.name = "norm.num_batches_tracked", .dtype = STORED_I64, .data = &counter}};
    WeightsReport report;
    State s;
    write_changed("", "", more, 1);
    if (!load(&report, &s, 5, HEAD_STRICT, NULL)) fail_msg("%s\n%s", err.text, heard);
    assert_int_equal(report.tensors, s.n_params);
    assert_int_equal(report.wanted_tensors, s.n_params);
    assert_int_equal(report.parameters, state_parameter_count(&s));
    assert_false(report.head_new);
    char line[64];
    snprintf(line, sizeof line, "loaded %d of %d tensors, ", (int)s.n_params, (int)s.n_params);
    expect_heard(line);
    expect_heard(" parameters (100 %)\n");
    for (int32_t p = 0; p < s.n_params; p++)
        assert_true(first_of(&s, s.params[p].name) == by_rule(s.params[p].name, &s.params[p].shape));
    state_free(&s);
}

/* Every number of a role becomes other than that of every other role. */
static void fill_roles(State *s, unsigned roles) {
    for (StateRole role = 0; role < ROLE_COUNT; role++)
        for (int64_t i = 0; roles >> role & 1 && i < state_role_length(s, role); i++)
            s->buffer[role][i] = 100 * (float)(role + 1) + (float)i / 1024;
}

/* The average is saved under the names of the weights, with the running statistics, which have none; what is loaded
 * goes into the weights, whatever it was saved from. All numbers, not the first. */
static void test_roles_are_those_asked_for(void **state) {
    (void)state;
    enum { ROLES = MODEL | 1u << ROLE_EMA | 1u << ROLE_MOMENT1 };
    static const StateRole saved[] = {ROLE_WEIGHT, ROLE_EMA};
    for (size_t k = 0; k < COUNTOF(saved); k++) {
        State from = small_state(5, ROLES), to = small_state(5, ROLES);
        fill_roles(&from, ROLES);
        OK(weights_save(changed, &from, saved[k], NULL, 0, &err));
        TensorFile f;
        OK(tensor_file_open(&f, changed, NULL, &err));
        WeightsPolicy policy = {.head = HEAD_STRICT};
        WeightsReport report;
        OK(weights_load(&report, &to, &f, &policy, &err));
        tensor_file_close(&f);
        for (int32_t p = 0; p < to.n_params; p++) {
            bool buffer = to.params[p].buffer;
            const float *want = state_slot(&from, buffer ? ROLE_BUFFER : saved[k], p);
            const float *got = state_slot(&to, buffer ? ROLE_BUFFER : ROLE_WEIGHT, p);
            if (memcmp(got, want, (size_t)state_count(&to, p) * sizeof *got) != 0)
                fail_msg("%s: %g instead of %g", to.params[p].name, (double)got[0], (double)want[0]);
        }
        for (int64_t i = 0; i < state_role_length(&to, ROLE_EMA); i++)
            assert_true(to.buffer[ROLE_EMA][i] == 0 && to.buffer[ROLE_MOMENT1][i] == 0);
        state_free(&from), state_free(&to);
    }
}

/* A model is taken over by name from the role asked for, a role wholly. */
static void test_roles_copied_within_the_device(void **state) {
    (void)state;
    enum { ROLES = MODEL | 1u << ROLE_EMA };
    State from = small_state(5, ROLES), to = small_state(5, ROLES);
    fill_roles(&from, ROLES);
    OK(state_copy_model(&to, &from, ROLE_EMA, &err));
    for (int32_t p = 0; p < to.n_params; p++) {
        bool buffer = to.params[p].buffer;
        assert_memory_equal(state_slot(&to, buffer ? ROLE_BUFFER : ROLE_WEIGHT, p),
                            state_slot(&from, buffer ? ROLE_BUFFER : ROLE_EMA, p),
                            (size_t)state_count(&to, p) * sizeof(float));
    }
    OK(state_copy_role(&from, ROLE_EMA, ROLE_WEIGHT, &err));
    size_t bytes = (size_t)state_role_length(&from, ROLE_WEIGHT) * sizeof(float);
    assert_memory_equal(from.buffer[ROLE_EMA], from.buffer[ROLE_WEIGHT], bytes);
    assert_true(from.buffer[ROLE_WEIGHT][7] == 100 * (ROLE_WEIGHT + 1) + 7 / 1024.0f);
    int64_t count = 0;
    for (int32_t p = 0; p < to.n_params; p++) count += to.params[p].buffer ? 0 : state_count(&to, p);
    assert_int_equal(state_parameter_count(&to), count);
    state_free(&from), state_free(&to);
}

/* Every kind of misfit stands in one table; EXIT_INPUT; and each can be allowed by name. */
static void test_misfits(void **state) {
    (void)state;
    static const float values[6] = {0};
    StoredTensor more[] = {{.name = "extra_norms.0.norm.weight", .dtype = STORED_F32, .rank = 2, .shape = {2, 3}, .data = values}};
    WeightsReport report;
    State s;
    write_changed("layers.0.blocks.0.gamma_1", "head.weight", more, 1);
    assert_false(load(&report, &s, 5, HEAD_STRICT, NULL));
    state_free(&s);
    assert_int_equal(err.code, EXIT_INPUT);
    assert_non_null(strstr(err.text, "1 tensors missing, 1 of another shape, 1 unexpected"));
    expect_heard("kind        tensor                     in the file       in the model\n"
                 "missing     layers.0.blocks.0.gamma_1  -                 1x8x1x1\n"
                 "shape       head.weight                80                5x16x1x1\n"
                 "unexpected  extra_norms.0.norm.weight  2x3               -\n");
    static const char *const too_few[] = {"layers.*", "head.weight,extra*", "*.gamma_1, extra_norms.?.*", ""};
    for (size_t i = 0; i < COUNTOF(too_few); i++) {
        assert_false(load(&report, &s, 5, HEAD_REPLACE, too_few[i]));
        state_free(&s);
    }
    if (!load(&report, &s, 5, HEAD_STRICT, "*.gamma_1, extra_norms.?.*,head.weight")) fail_msg("%s", err.text);
    assert_int_equal(report.allowed, 3);
    assert_int_equal(report.tensors, s.n_params - 2);
    expect_heard("3 misfits allowed");
    assert_null(strstr(heard, "100 %"));
    assert_true(first_of(&s, "layers.0.blocks.0.gamma_1") == 1); /* as it was drawn */
    state_free(&s);
}

/* Counters of batches are known by the end of their name; what only has that in it is not. */
static void test_counters_are_known_by_their_last_name(void **state) {
    (void)state;
    static const float value[1] = {3};
    static const struct {
        const char *name;
        bool known;
    } rows[] = {{"layers.0.blocks.0.norm.num_batches_tracked", true},
                {"layers.0.num_batches_tracked.weight", false},
                {"num_batches_tracked_too", false}};
    for (size_t i = 0; i < COUNTOF(rows); i++) {
        StoredTensor more[] = {{.name = rows[i].name, .dtype = STORED_F32, .rank = 0, .data = value}};
        WeightsReport report;
        State s;
        err = (Err){0};
        write_changed("", "", more, 1);
        assert_int_equal(load(&report, &s, 5, HEAD_STRICT, NULL), rows[i].known);
        if (!rows[i].known) assert_non_null(strstr(err.text, "0 tensors missing, 0 of another shape, 1 unexpected"));
        state_free(&s);
    }
}

static void test_long_table(void **state) {
    (void)state;
    WeightsReport report;
    State s;
    write_changed("*", "", NULL, 0);
    assert_false(load(&report, &s, 5, HEAD_STRICT, NULL));
    char more[64];
    snprintf(more, sizeof more, "missing     ... and %d more\n", (int)s.n_params - 20);
    expect_heard(more);
    int lines = 0;
    for (const char *c = heard; *c; c++) lines += *c == '\n';
    assert_int_equal(lines, 1 + 20 + 1);
    state_free(&s);
}

/* Another number of classes: refused, or a new head; a head of another width is no such thing. */
static void test_head(void **state) {
    (void)state;
    WeightsReport report;
    State s;
    write_changed("", "", NULL, 0);
    assert_false(load(&report, &s, 3, HEAD_STRICT, NULL));
    state_free(&s);
    for (int classes = 3; classes <= 5; classes += 2) {
        State drawn = small_state(classes, MODEL);
        assert_true(state_init(&drawn, 3, NULL));
        OK(load(&report, &s, classes, classes == 5 ? HEAD_NEW : HEAD_REPLACE, NULL));
        assert_true(report.head_new);
        assert_int_equal(report.tensors, s.n_params - 2);
        expect_heard("head starts anew");
        assert_true(first_of(&s, "head.weight") == first_of(&drawn, "head.weight"));
        assert_true(first_of(&s, "proj.weight") != first_of(&drawn, "proj.weight"));
        state_free(&s), state_free(&drawn);
    }
    OK(load(&report, &s, 5, HEAD_REPLACE, NULL)); /* as many classes: the head is kept */
    assert_false(report.head_new);
    state_free(&s);
    write_changed("", "head.weight", NULL, 0);
    assert_false(load(&report, &s, 3, HEAD_REPLACE, NULL));
    state_free(&s);
}

/* A backbone of ours, without proj and norm but with extra_norms, and one of others, which keeps them. */
static void test_backbone(void **state) {
    (void)state;
    static const float ones[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    static const StoredTensor norm = {.name = "extra_norms.0.norm.weight", .dtype = STORED_F32, .rank = 1, .shape = {8}, .data = ones};
    WeightsReport report;
    State s, drawn = small_state(5, MODEL);
    assert_true(state_init(&drawn, 3, NULL));
    for (int ours = 0; ours < 2; ours++) {
        write_changed(ours ? CLASSIFIER_ONLY : "head.*", "", &norm, (size_t)ours);
        OK(load(&report, &s, 5, ours ? HEAD_REPLACE : HEAD_NEW, NULL));
        assert_true(report.backbone && report.head_new);
        assert_true(report.tensors < s.n_params && report.parameters < report.wanted_parameters);
        expect_heard("a backbone: its classifier starts anew");
        assert_true(first_of(&s, "head.weight") == first_of(&drawn, "head.weight"));
        assert_true((first_of(&s, "proj.weight") == first_of(&drawn, "proj.weight")) == (ours == 1));
        assert_true(first_of(&s, "layers.0.blocks.0.gamma_1") != first_of(&drawn, "layers.0.blocks.0.gamma_1"));
        state_free(&s);
        assert_false(load(&report, &s, 5, HEAD_STRICT, NULL));
        state_free(&s);
    }
    write_changed("head.*,layers.0.*", "", NULL, 0); /* what is missing beside the classifier is missing */
    assert_false(load(&report, &s, 5, HEAD_REPLACE, NULL));
    state_free(&s);
    state_free(&drawn);
}

/* The buffer of released checkpoints is not needed, but it has to be the one this program computes with. */
static void test_angles(void **state) {
    (void)state;
    WeightsReport report;
    State s;
    float angle[8];
    for (int i = 0; i < 8; i++) angle[i] = 1 / powf(10000, (float)(i / 2) / 3);
    StoredTensor more[] = {{.name = "layers.0.RoPE.angle", .dtype = STORED_F32, .rank = 1, .shape = {8}, .data = angle}};
    write_changed("", "", more, 1);
    OK(load(&report, &s, 5, HEAD_STRICT, NULL));
    state_free(&s);
    static const float wrong[] = {0.05f, NAN, 0};
    for (size_t i = 0; i < COUNTOF(wrong); i++) {
        angle[3] = wrong[i];
        write_changed("", "", more, 1);
        assert_false(load(&report, &s, 5, HEAD_STRICT, NULL));
        assert_int_equal(err.code, EXIT_INPUT);
        assert_non_null(strstr(err.text, "layers.0.RoPE.angle: angle 3"));
        state_free(&s);
    }
}

/* What is called angles and is not, a scalar that nobody asked for, a head without a shape of one. */
static void test_shapes_of_nothing_known(void **state) {
    (void)state;
    static const float values[5000] = {0};
    static const StoredTensor odd[] = {
        {.name = "layers.0.RoPE.angle", .dtype = STORED_F32, .rank = 2, .shape = {2, 2}, .data = values},
        {.name = "layers.0.RoPE.angle", .dtype = STORED_F32, .rank = 1, .shape = {3}, .data = values},
        {.name = "layers.0.RoPE.angle", .dtype = STORED_F32, .rank = 1, .shape = {4098}, .data = values},
    };
    WeightsReport report;
    State s;
    for (size_t i = 0; i < COUNTOF(odd); i++) {
        write_changed("", "", &odd[i], 1);
        assert_false(load(&report, &s, 5, HEAD_STRICT, NULL));
        assert_int_equal(err.code, EXIT_INPUT);
        assert_non_null(strstr(err.text, "layers.0.RoPE.angle: not the angles of a rotary embedding"));
        state_free(&s);
    }
    static const StoredTensor scalar = {.name = "step", .dtype = STORED_F32, .data = values};
    write_changed("", "", &scalar, 1);
    assert_false(load(&report, &s, 5, HEAD_STRICT, NULL));
    expect_heard("unexpected  step    scalar            -\n");
    state_free(&s);
}

/* A wrapper's prefix that no rule knows is named; names of a MAViT are none. */
static void test_prefixes_are_named(void **state) {
    (void)state;
    static const float values[1] = {0};
    static const struct {
        const char *name, *prefix;
    } names[] = {{"encoder.head.weight", "begin with \"encoder.\""},
                 {"a.b.patch_embed.proj.0.weight", "begin with \"a.b.\""},
                 {".head.weight", NULL}, {"overhead.weight", NULL}, {"head.weight.0", NULL}, {"head.weight", NULL},
                 {"patch_embed.proj.0.weight", NULL}};
    for (size_t i = 0; i < COUNTOF(names); i++) {
        StoredTensor one = {.name = names[i].name, .dtype = STORED_F32, .rank = 1, .shape = {1}, .data = values};
        TensorFile f;
        OK(safetensors_write(changed, &one, 1, NULL, 0, &err));
        OK(tensor_file_open(&f, changed, NULL, &err));
        err = (Err){0};
        assert_int_equal(weights_check_names(&f, &err), names[i].prefix == NULL);
        if (names[i].prefix && !strstr(err.text, names[i].prefix)) fail_msg("%s", err.text);
        err = (Err){0};
        bool whole_name = strncmp(names[i].name, "patch_embed.", 12) == 0;
        assert_int_equal(weights_check_kind(&f, &err), whole_name);
        const char *wanted = "/changed.safetensors: is no MAViT: \"patch_embed.proj.0.weight\" is not among its 1 "
                             "tensors - name a file of MAViT's weights";
        if (names[i].prefix) wanted = names[i].prefix;
        if (!whole_name && !strstr(err.text, wanted)) fail_msg("%s", err.text);
        tensor_file_close(&f);
    }
}

/* int(dim * mlp_ratio) as Python has it: 60 * 1.05 is 63, with 1.05 as a float 62. */
static void test_hidden_channels(void **state) {
    (void)state;
    ClassifySpec spec = {.model = {.dims = {60, 60, 60, 60}, .depths = {1, 1, 1, 1}, .heads = {3, 3, 3, 3},
                                   .mlp_ratio = 1.05, .projection = 16, .classes = 2, .layer_scale = {1, 1, 1, 1}},
                         .std = {1, 1, 1}};
    ClassifyGraph g = classify_eval_graph(&spec, 1, 32, 32, 0);
    State s;
    OK(state_new(&s, g.graph, &backend, MODEL, &err));
    int32_t p = state_find(&s, "layers.0.blocks.0.ffn.fc1.weight");
    assert_true(p >= 0);
    assert_int_equal(s.params[p].shape.dim[0], 63);
    state_free(&s);
    classify_graph_free(&g);
}

static void test_patterns(void **state) {
    (void)state;
    static const struct {
        const char *pattern, *text;
        bool fits;
    } cases[] = {{"", "", true},           {"", "a", false},         {"a", "a", true},          {"a", "ab", false},
                 {"ab", "a", false},       {"?", "a", true},         {"?", "", false},          {"*", "", true},
                 {"*", "anything", true},  {"head.*", "head.", true}, {"head.*", "head", false}, {"*.bias", "a.bias", true},
                 {"*.bias", "a.bia", false}, {"a*b*c", "aXbXc", true}, {"a*b*c", "acb", false},   {"*ab*ab", "abXabab", true},
                 {"a**c", "abc", true},    {"*a?c*", "xxabcxx", true}, {"*?", "", false},         {"**", "", true}};
    for (size_t i = 0; i < COUNTOF(cases); i++)
        if (text_matches(cases[i].pattern, cases[i].text) != cases[i].fits)
            fail_msg("'%s' and '%s'", cases[i].pattern, cases[i].text);
    assert_true(text_matches_any("x, head.* ,y", "head.bias"));
    assert_true(text_matches_any("y,x", "x"));
    assert_false(text_matches_any("", ""));
    assert_false(text_matches_any(" , ,", "a"));
    assert_false(text_matches_any("a,b", "a,b"));
    char slow[2001], text[2001]; /* many stars must not take exponential time */
    for (int i = 0; i < 2000; i++) slow[i] = i % 2 ? '*' : 'a', text[i] = 'a';
    slow[2000] = text[2000] = '\0';
    text[1999] = slow[1999] = 'b';
    assert_false(text_matches(slow, text + 1500));
    assert_true(text_matches(slow, text));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_imagenet_names),
        cmocka_unit_test(test_imagenet_facts),
        cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_misfits),
        cmocka_unit_test(test_counters_are_known_by_their_last_name),
        cmocka_unit_test(test_roles_are_those_asked_for),
        cmocka_unit_test(test_roles_copied_within_the_device),
        cmocka_unit_test(test_long_table),
        cmocka_unit_test(test_head),
        cmocka_unit_test(test_backbone),
        cmocka_unit_test(test_angles),
        cmocka_unit_test(test_shapes_of_nothing_known),
        cmocka_unit_test(test_prefixes_are_named),
        cmocka_unit_test(test_hidden_channels),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
