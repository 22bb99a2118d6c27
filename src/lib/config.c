/* config.c - loading a config, the checks that one option alone cannot make, and what "auto" stands for. */
#include "lib/config.h"

#include "base/cpus.h"
#include "base/file.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define FILE_LIMIT ((size_t)1 << 20)

/* ---- models ---- */

/* The paper's four sizes, as released; the projection is 4 * the last dim in all of them. */
static const MavitConfig presets[] = {
    [MODEL_T] = {.dims = {64, 128, 256, 512},
                 .depths = {2, 2, 6, 2},
                 .heads = {1, 2, 4, 8},
                 .drop_path = 0.1f,
                 .layer_scale = {1, 1, 1, 1}},
    [MODEL_S] = {.dims = {64, 128, 320, 512},
                 .depths = {3, 5, 9, 3},
                 .heads = {1, 2, 5, 8},
                 .drop_path = 0.15f,
                 .layer_scale = {1, 1, 1, 1}},
    [MODEL_B] = {.dims = {96, 192, 384, 512},
                 .depths = {4, 6, 12, 6},
                 .heads = {1, 2, 6, 8},
                 .drop_path = 0.4f,
                 .layer_scale = {1, 1, 1e-6f, 1e-6f}},
    [MODEL_L] = {.dims = {96, 192, 448, 640},
                 .depths = {4, 7, 19, 8},
                 .heads = {1, 2, 7, 10},
                 .drop_path = 0.55f,
                 .layer_scale = {1e-6f, 1e-6f, 1e-6f, 1e-6f}},
    [MODEL_CUSTOM] = {.layer_scale = {1, 1, 1, 1}},
};

MavitConfig config_mavit(const Config *c, int classes) {
    MavitConfig m = presets[c->model.name];
    for (int i = 0; i < MAVIT_STAGES; i++) {
        if (c->model.dims[0] != AUTO_INT) m.dims[i] = c->model.dims[i];
        if (c->model.depths[0] != AUTO_INT) m.depths[i] = c->model.depths[i];
        if (c->model.heads[0] != AUTO_INT) m.heads[i] = c->model.heads[i];
        if (!isnan(c->model.layer_scale[0])) m.layer_scale[i] = (float)c->model.layer_scale[i];
        m.attention[i] = (AttentionKind)c->model.attention[i];
    }
    m.mlp_ratio = c->model.mlp_ratio;
    if (!isnan(c->model.drop_path)) m.drop_path = (float)c->model.drop_path;
    m.projection = c->model.projection != AUTO_INT ? c->model.projection : 4 * m.dims[MAVIT_STAGES - 1];
    m.classes = c->model.num_classes != AUTO_INT ? c->model.num_classes : classes;
    return m;
}

bool config_find_size(int *name, const int dims[MAVIT_STAGES], const int depths[MAVIT_STAGES]) {
    for (*name = 0; *name < MODEL_CUSTOM; ++*name) {
        const MavitConfig *m = &presets[*name];
        if (memcmp(m->dims, dims, sizeof m->dims) == 0 && memcmp(m->depths, depths, sizeof m->depths) == 0) return true;
    }
    return false;
}

double config_crop_pct(const Config *c) {
    if (!isnan(c->input.crop_pct)) return c->input.crop_pct;
    return MAX(c->input.size[0], c->input.size[1]) <= 224 ? 0.875 : 1.0;
}

int config_eval_batch(const Config *c) {
    return c->eval.batch_size != AUTO_INT ? c->eval.batch_size : c->train.batch_size;
}

int config_threads(const Config *c) { return c->train.threads != AUTO_INT ? c->train.threads : cpus_usable(); }

int config_workers(const Config *c) {
    return c->data.workers != AUTO_INT ? c->data.workers : MIN(MAX(cpus_usable() / 2, 1), 16);
}

/* ---- checks ---- */

static bool check_size(const Config *c, Err *err) {
    for (int i = 0; i < 2; i++) {
        int size = c->input.size[i], below = size / 32 * 32;
        if (size != below)
            return options_fail(&c->options, "input.size", err, "%d is no multiple of 32 - nearest: %d or %d", size,
                                below, below + 32);
    }
    return true;
}

static bool check_model(const Config *c, Err *err) {
    static const char *const needed[] = {"model.dims", "model.depths", "model.heads"};
    const int *lists[] = {c->model.dims, c->model.depths, c->model.heads};
    for (size_t i = 0; i < COUNTOF(needed); i++)
        if (c->model.name == MODEL_CUSTOM && lists[i][0] == AUTO_INT)
            return options_fail(&c->options, "model.name", err, "custom needs %s - give a list of 4", needed[i]);
    MavitConfig m = config_mavit(c, 0);
    for (int i = 0; i < MAVIT_STAGES; i++) {
        const char *blame = options_given(&c->options, "model.heads") ? "model.heads" : "model.dims";
        if (m.dims[i] % m.heads[i] != 0)
            return options_fail(&c->options, blame, err, "stage %d: dim %d is not divisible by %d heads", i, m.dims[i],
                                m.heads[i]);
        if (m.dims[i] / m.heads[i] > ATTENTION_MAX_HEAD)
            return options_fail(&c->options, blame, err,
                                "stage %d: %d channels per head (dim %d, %d heads) - at most %d", i,
                                m.dims[i] / m.heads[i], m.dims[i], m.heads[i], ATTENTION_MAX_HEAD);
        if (m.dims[i] / m.heads[i] % 4 != 0)
            return options_fail(&c->options, blame, err,
                                "stage %d: %d channels per head (dim %d, %d heads) - the rotary position encoding "
                                "needs a multiple of 4",
                                i, m.dims[i] / m.heads[i], m.dims[i], m.heads[i]);
    }
    return true;
}

static bool check_lists(OptionSet *options, const char *name, const int *values, Err *err) {
    for (int i = 1; i < MAVIT_STAGES; i++)
        if ((values[i] == AUTO_INT) != (values[0] == AUTO_INT))
            return options_fail(options, name, err, "either all four or none may be auto");
    return true;
}

DeviceKind config_device(const Config *c, int *index) {
    *index = 0;
    int word = option_word_index("auto cpu cuda|gpu", c->device); /* in the order of DeviceKind */
    if (word >= 0) return (DeviceKind)word;
    const char *colon = strchr(c->device, ':');
    bool cuda = colon && (strncmp(c->device, "cuda:", 5) == 0 || strncmp(c->device, "gpu:", 4) == 0);
    if (!cuda || colon[1] == '\0' || strlen(colon) > 4 || strspn(colon + 1, "0123456789") != strlen(colon + 1))
        return DEVICE_UNKNOWN;
    for (const char *digit = colon + 1; *digit; digit++) *index = *index * 10 + (*digit - '0');
    return DEVICE_CUDA;
}

static bool check_values(Config *c, Err *err) {
    OptionSet *o = &c->options;
    if (c->aug.scale[0] > c->aug.scale[1])
        return options_fail(o, "aug.scale", err, "%g is above %g - the smaller one comes first", c->aug.scale[0],
                            c->aug.scale[1]);
    if (c->aug.ratio[0] > c->aug.ratio[1])
        return options_fail(o, "aug.ratio", err, "%g is above %g - the smaller one comes first", c->aug.ratio[0],
                            c->aug.ratio[1]);
    for (int i = 1; i < MAVIT_STAGES; i++)
        if (isnan(c->model.layer_scale[i]) != isnan(c->model.layer_scale[0]))
            return options_fail(o, "model.layer_scale", err, "either all four or none may be auto");
    int index;
    if (config_device(c, &index) == DEVICE_UNKNOWN)
        return options_fail(o, "device", err, "\"%s\" is none of auto, cpu, cuda, cuda:N", c->device);
    if (!c->train.deterministic)
        return options_fail(o, "train.deterministic", err, "false is not possible - every run is deterministic here");
    if (c->output[0] == '\0') return options_fail(o, "output", err, "empty - name a directory");
    return check_lists(o, "model.dims", c->model.dims, err) && check_lists(o, "model.depths", c->model.depths, err) &&
           check_lists(o, "model.heads", c->model.heads, err) && check_model(c, err) && check_size(c, err);
}

bool config_check_data(const Config *c, Err *err) {
    if (!c->data.path)
        return options_fail(&c->options, "data.path", err, "not given - name the data set's directory with --data DIR");
    PathKind kind;
    if (!path_kind(&kind, c->data.path, err)) return false;
    if (kind != PATH_FOLDER)
        return options_fail(&c->options, "data.path", err,
                            "\"%s\" is no directory - name one that holds train/ and val/, in each a folder per class",
                            c->data.path);
    return true;
}

/* The real path of a directory that may not exist yet: of its nearest ancestor that does. malloc'd; NULL: none. */
static char *real_ancestor(const char *path) {
    char *copy = mem_strdup(path), *real;
    while (!(real = path_real(copy))) {
        char *slash = strrchr(copy, '/');
        if (slash && slash != copy) {
            *slash = '\0';
            continue;
        }
        real = path_real(slash ? "/" : ".");
        break;
    }
    free(copy);
    return real;
}

static bool is_inside(const char *path, const char *folder) {
    size_t length = strlen(folder);
    return !strncmp(path, folder, length) && (path[length] == '/' || path[length] == '\0');
}

static bool is_typed(const OptionSet *o, const char *name) {
    const char *where = options_where(o, name);
    return where && strcmp(where, COMMAND_LINE) == 0;
}

/* What was typed is not corrected but refused: it says two things at once. */
static bool check_schedule(const Config *c, Err *err) {
    const OptionSet *o = &c->options;
    double peak = config_schedule(c, c->train.batch_size, NULL).peak_lr;
    if (is_typed(o, "sched.warmup_epochs") && c->sched.warmup_epochs >= c->sched.epochs)
        return options_fail(o, "sched.warmup_epochs", err, "%g of %d epochs - the warm-up must end before the run",
                            c->sched.warmup_epochs, c->sched.epochs);
    if (is_typed(o, "sched.min_lr") && c->sched.min_lr > peak)
        return options_fail(o, "sched.min_lr", err,
                            "%g is above the peak learning rate, %g (%g for %d images a step, batch %d) - lower it, or "
                            "set optim.lr_base_size=0",
                            c->sched.min_lr, peak, c->optim.lr, c->optim.lr_base_size, c->train.batch_size);
    return true;
}

bool config_check_training(const Config *c, Err *err) {
    const OptionSet *o = &c->options;
    if (!config_check_data(c, err)) return false;
    if (!check_schedule(c, err)) return false;
    char *output = real_ancestor(c->output), *data = path_real(c->data.path), *whole = path_real(c->output);
    bool root = whole && strcmp(whole, "/") == 0;
    free(whole);
    bool inside = output && data && is_inside(output, data);
    free(output);
    free(data);
    if (root) return options_fail(o, "output", err, "\"%s\" is the root of all folders - name one in it", c->output);
    if (inside)
        return options_fail(o, "output", err, "\"%s\" lies inside the data set \"%s\", which mala never writes to",
                            c->output, c->data.path);
    return true;
}

/* ---- loading ---- */

static bool read_file(OptionSet *set, const char *path, Err *err) {
    uint8_t *text = NULL;
    size_t count = 0;
    bool ok = file_read(&text, &count, path, FILE_LIMIT, err);
    size_t mark = ok ? json_mark((char *)text, count) : 0;
    ok = ok && options_read_json(set, (char *)text + mark, count - mark, path, err);
    if (!ok && err->code == EXIT_INPUT) err->code = EXIT_USAGE; /* a missing config is a mistake in the command */
    free(text);
    return ok;
}

/* "base" is relative to the file that names it. */
static char *base_path(const char *file, const char *base) {
    const char *slash = strrchr(file, '/');
    if (base[0] == '/' || !slash) return mem_strdup(base);
    char *folder = mem_strdup(file);
    folder[slash - file + (slash == file)] = '\0';
    char *path = path_join(folder, base);
    free(folder);
    return path;
}

/* The file's own values must win over its base's, so it is read twice: for the base's name, and after it. */
static bool read_with_base(Config *c, const char *file, Err *err) {
    if (!read_file(&c->options, file, err)) return false;
    if (!c->base) return true;
    char *path = base_path(file, c->base);
    options_free(&c->options);
    options_init(&c->options, config_table, config_table_count, c);
    bool ok = read_file(&c->options, path, err);
    if (ok && c->base)
        ok = options_fail(&c->options, "base", err, "a base cannot have a base of its own - name \"%s\" directly",
                          c->base);
    free(path);
    return ok && read_file(&c->options, file, err);
}

static bool finish(Config *c, Settings settings, Err *err) {
    free(c->base);
    c->base = NULL;
    for (int i = 0; i < settings.count; i++)
        if (!options_assign(&c->options, settings.texts[i], settings.place, err)) return false;
    if (c->base) return options_fail(&c->options, "base", err, "for config files only - use --config FILE");
    return check_values(c, err);
}

static void init(Config *c) {
    *c = (Config){0};
    options_init(&c->options, config_table, config_table_count, c);
}

bool config_load_settings(Config *c, const char *file, Settings settings, Err *err) {
    init(c);
    return (!file || read_with_base(c, file, err)) && finish(c, settings, err);
}

/* finish, but values that do not go together are the file's fault where they did not before the settings, either. */
static bool finish_file(Config *c, Settings settings, Err *err) {
    Err before = {0};
    bool sound = check_values(c, &before);
    if (finish(c, settings, err)) return true;
    if (!sound && strcmp(before.text, err->text) == 0) err->code = EXIT_INPUT;
    return false;
}

/* What a file says is wrong with the file, not with what was typed. */
static bool fault_of_file(Err *err) {
    if (err->code == EXIT_USAGE) err->code = EXIT_INPUT;
    return false;
}

static bool read_text(Config *c, const char *text, size_t count, const char *name, Err *err) {
    init(c);
    if (!options_read_json(&c->options, text, count, name, err)) return fault_of_file(err);
    return !c->base || options_fail(&c->options, "base", err, "not possible here") || fault_of_file(err);
}

bool config_load_text_settings(Config *c, const char *text, size_t count, const char *name, Settings settings,
                               Err *err) {
    return read_text(c, text, count, name, err) && finish_file(c, settings, err);
}

bool config_load_embedded(Config *c, const char *text, size_t count, const char *name, Settings settings, Err *err) {
    static const char *const of_machine[] = {"device", "train.threads", "data.workers"};
    if (!read_text(c, text, count, name, err)) return false;
    for (size_t i = 0; i < COUNTOF(of_machine); i++) options_reset(&c->options, of_machine[i]);
    return finish_file(c, settings, err);
}

bool config_load_values(Config *c, const ConfigValue *values, int count, Settings settings, Err *err) {
    init(c);
    for (int i = 0; i < count; i++)
        if (!options_set(&c->options, values[i].key, values[i].value, values[i].where, err)) return fault_of_file(err);
    return finish_file(c, settings, err);
}

bool config_load(Config *c, const char *file, char *const *overrides, int override_count, Err *err) {
    return config_load_settings(c, file, (Settings){overrides, override_count, COMMAND_LINE}, err);
}

bool config_load_text(Config *c, const char *text, size_t count, const char *name, char *const *overrides,
                      int override_count, Err *err) {
    return config_load_text_settings(c, text, count, name, (Settings){overrides, override_count, COMMAND_LINE}, err);
}

void config_free(Config *c) { options_free(&c->options); }

char *config_dump(const Config *c) {
    JsonWriter w = {.indent = 2};
    options_dump(&c->options, &w);
    char *text = mem_strdup(json_writer_text(&w));
    json_writer_free(&w);
    return text;
}

void config_absolute(Config *out, const Config *c) {
    *out = *c;
    out->options.target = out;
    out->output = path_absolute(c->output);
    out->data.path = c->data.path ? path_absolute(c->data.path) : NULL;
    out->model.weights = c->model.weights ? path_absolute(c->model.weights) : NULL;
}

void config_absolute_free(Config *out) {
    free(out->output);
    free(out->data.path);
    free(out->model.weights);
    *out = (Config){0};
}
