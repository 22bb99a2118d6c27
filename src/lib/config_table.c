/* config_table.c - the options of mala, one row each. Names follow what users of timm, DeiT and ultralytics type; their
 * other names are in the `also` column, for "did you mean". Defaults are the released recipe's. */
#include "lib/config.h"
#include "data/transform.h"

#define AT(field) offsetof(Config, field)
#define INT(name, field, initial, low, high, also, help) \
    { name, OPTION_INT, 0, 0, AT(field), initial, low, high, NULL, also, help }
#define INT_AUTO(name, field, initial, low, high, also, help) \
    { name, OPTION_INT, 0, OPTION_AUTO, AT(field), initial, low, high, NULL, also, help }
#define FLOAT(name, field, initial, low, high, also, help) \
    { name, OPTION_FLOAT, 0, 0, AT(field), initial, low, high, NULL, also, help }
#define FLOAT_AUTO(name, field, initial, low, high, also, help) \
    { name, OPTION_FLOAT, 0, OPTION_AUTO, AT(field), initial, low, high, NULL, also, help }
#define FLOATS(name, field, length, initial, low, high, also, help) \
    { name, OPTION_FLOAT, length, 0, AT(field), initial, low, high, NULL, also, help }
#define STAGES(name, field, type, flags, initial, low, high, words, help) \
    { name, type, 4, flags, AT(field), initial, low, high, words, NULL, help }
#define BOOL(name, field, initial, also, help) \
    { name, OPTION_BOOL, 0, 0, AT(field), initial, 0, 0, NULL, also, help }
#define STRING(name, field, flags, initial, also, help) \
    { name, OPTION_STRING, 0, flags, AT(field), initial, 0, 0, NULL, also, help }
#define ENUM(name, field, initial, words, also, help) \
    { name, OPTION_ENUM, 0, 0, AT(field), initial, 0, 0, words, also, help }

#define MODELS \
    "mavit_t|mala_t|mavit_tiny|mala_tiny mavit_s|mala_s|mavit_small|mala_small " \
    "mavit_b|mala_b|mavit_base|mala_base mavit_l|mala_l|mavit_large|mala_large custom"

#define PRECISIONS "auto float32|fp32 tf32 bfloat16|bf16 float16|fp16"

const Option config_table[] = {
    ENUM("model.name", model.name, "mavit_t", MODELS, "model arch backbone", "architecture"),
    STAGES("model.dims", model.dims, OPTION_INT, OPTION_AUTO, "auto", 4, 8192, NULL,
           "channels of the four stages; auto: the model's own"),
    STAGES("model.depths", model.depths, OPTION_INT, OPTION_AUTO, "auto", 1, 256, NULL, "blocks per stage"),
    STAGES("model.heads", model.heads, OPTION_INT, OPTION_AUTO, "auto", 1, 256, NULL, "attention heads per stage"),
    FLOAT("model.mlp_ratio", model.mlp_ratio, "3.5", 0.25, 16, "mlp_ratios", "hidden channels of a block's MLP / dim"),
    INT_AUTO("model.projection", model.projection, "auto", 1, 65536, NULL,
             "channels before the classifier; auto: 4 * the last dim"),
    STAGES("model.attention", model.attention, OPTION_ENUM, OPTION_SPREAD, "mala,mala,softmax,softmax", 0, 0,
           "mala softmax linear inline", "kind of attention per stage; one value stands for all"),
    FLOAT_AUTO("model.drop_path", model.drop_path, "auto", 0, 0.95, "drop_path_rate stochastic_depth",
               "rate of dropped paths in the last block, growing from 0; auto: the model's own"),
    STAGES("model.layer_scale", model.layer_scale, OPTION_FLOAT, OPTION_AUTO | OPTION_SPREAD, "auto", 0, 10, NULL,
           "start of the residual scales per stage; auto: the model's own"),
    INT_AUTO("model.num_classes", model.num_classes, "auto", 2, 100000, "nc classes nb_classes",
             "auto: from the data or the weights"),
    STRING("model.weights", model.weights, OPTION_NULL, "null", "pretrained finetune checkpoint",
           "weights: a .safetensors or .pth file, a run's folder or a model hub's"),
    ENUM("model.weights_ema", model.weights_ema, "auto", "auto yes|true no|false", NULL,
         "which weights of a checkpoint with two sets: averages or raw; auto: averages where there are some"),
    STRING("model.allow_missing", model.allow_missing, OPTION_NULL | OPTION_UNSAVED, "null", "strict allow_mismatch",
           "tensors that the file may lack, have in another shape or have beside the model's: patterns with * and ?, "
           "apart by commas"),

    STRING("data.path", data.path, OPTION_NULL, "null", "data data_path data_dir root dataset",
           "directory with one folder per split, in it one per class"),
    STRING("data.train", data.train, 0, "train", "train_split", "folder of the training images"),
    STRING("data.val", data.val, 0, "val", "val_split", "folder of the validation images"),
    INT_AUTO("data.workers", data.workers, "auto", 0, 256, "num_workers loaders",
             "decoding threads; auto: half of the usable CPUs"),
    ENUM("data.on_bad_image", data.on_bad_image, "skip", "skip error", NULL, "what an unreadable image does"),
    FLOAT("data.max_bad", data.max_bad, "0.01", 0, 1, NULL,
          "share of unreadable images that may be left out; above 0, one may"),
    INT("data.cache_mb", data.cache_mb, "512", 0, 1 << 20, "cache",
        "megabytes of decoded images kept in memory, for each split; 0: none"),

    {"input.size", OPTION_INT, 2, OPTION_SPREAD, AT(input.size), "224", 32, 8192, NULL, "imgsz img_size image_size res",
     "pixels, one number or [height, width]; multiples of 32"},
    FLOAT_AUTO("input.crop_pct", input.crop_pct, "auto", 0.1, 1, "crop_ratio",
               "share of the resized image that evaluation keeps; auto: 0.875 up to 224 pixels, 1 beyond"),
    ENUM("input.interpolation", input.interpolation, "bicubic", "bicubic bilinear", NULL, "how images are resized"),
    FLOATS("input.mean", input.mean, 3, "0.485,0.456,0.406", -10, 10, NULL, "subtracted from R, G, B in 0..1"),
    FLOATS("input.std", input.std, 3, "0.229,0.224,0.225", 1e-6, 10, NULL, "R, G, B are divided by"),

    ENUM("aug.crop", aug.crop, "rrc", "rrc pad none", "random_crop",
         "rrc: random resized crop; pad: pad and crop; none: as in evaluation"),
    FLOATS("aug.scale", aug.scale, 2, "0.08,1", 0.001, 1, NULL, "rrc: least and most share of the area"),
    FLOATS("aug.ratio", aug.ratio, 2, "0.75,1.3333", 0.05, 20, NULL, "rrc: least and most width / height"),
    INT("aug.pad", aug.pad, "4", 0, TRANSFORM_PAD_MAX, "padding", "pad: pixels on every side"),
    FLOAT("aug.hflip", aug.hflip, "0.5", 0, 1, "fliplr flip", "share of images that are mirrored"),

    FLOAT("optim.lr", optim.lr, "5e-4", 1e-9, 100, "learning_rate lr0 base_lr", "learning rate after warm-up"),
    INT("optim.lr_base_size", optim.lr_base_size, "512", 0, 1 << 20, "lr_base nbs",
        "lr is for this many images a step and scaled to the batch; 0: taken as it is"),
    FLOAT("optim.weight_decay", optim.weight_decay, "0.05", 0, 10, "wd decay", "of matrices and filters"),
    FLOATS("optim.betas", optim.betas, 2, "0.9,0.999", 0, 0.9999999, "opt_betas momentum", "of AdamW"),
    FLOAT("optim.eps", optim.eps, "1e-8", 1e-16, 1, "opt_eps epsilon", "of AdamW"),
    FLOAT("optim.clip_grad", optim.clip_grad, "0", 0, 1e6, "max_norm grad_clip", "largest gradient norm; 0: off"),

    INT("sched.epochs", sched.epochs, "300", 1, 1000000, "num_epochs max_epochs", "passes over the training images"),
    FLOAT_AUTO("sched.warmup_epochs", sched.warmup_epochs, "auto", 0, 1000000, "warmup",
               "epochs of linear warm-up; auto: 5, or a tenth of the epochs where that is less"),
    FLOAT_AUTO("sched.warmup_lr", sched.warmup_lr, "auto", 0, 100, NULL,
               "where the warm-up begins; auto: 1e-6, or a hundredth of the learning rate where that is less"),
    FLOAT_AUTO("sched.min_lr", sched.min_lr, "auto", 0, 100, "lrf final_lr",
               "where the cosine ends; auto: 1e-5, or a tenth of the learning rate where that is less"),

    INT("train.batch_size", train.batch_size, "128", 1, BATCH_MOST, "batch bs", "images per step"),
    FLOAT("train.smoothing", train.smoothing, "0.1", 0, 0.99, "label_smoothing", "label smoothing"),
    BOOL("train.ema", train.ema, "false", "model_ema", "keep a moving average of the weights"),
    FLOAT("train.ema_decay", train.ema_decay, "0.9999", 0, 0.9999999, "model_ema_decay", "of that average, per step"),
    BOOL("train.ema_ramp", train.ema_ramp, "true", "model_ema_warmup",
         "the decay is at most (1 + steps) / (10 + steps), so that the average leaves its start soon; false: ema_decay "
         "from the first step on, as in the released recipe"),
    {"train.seed", OPTION_INT64, 0, 0, AT(train.seed), "0", 0, 0x1p53 - 1, NULL, "random_seed",
     "of everything random; the same seed gives the same run"},
    INT_AUTO("train.threads", train.threads, "auto", 1, 1024, "num_threads cpus",
             "compute threads; auto: all usable CPUs"),
    ENUM("train.precision", train.precision, "auto", PRECISIONS, "amp amp_dtype dtype",
         "what features are computed in (weights and updates stay float32); auto: bfloat16 on a GPU, else float32"),
    ENUM("train.recompute", train.recompute, "auto", "auto none cheap",
         "grad_checkpointing use_checkpoint gradient_checkpointing",
         "activations that are not kept for the gradient but computed once more, to the same bits: none, or those that "
         "cost a pass over memory; auto: cheap on a GPU, else none"),
    BOOL("train.deterministic", train.deterministic, "true", NULL, "the same bits for any number of threads; always so"),

    INT_AUTO("eval.batch_size", eval.batch_size, "auto", 1, BATCH_MOST, "val_batch_size", "images per step; auto: train's"),
    {"eval.precision", OPTION_ENUM, 0, OPTION_UNSAVED, AT(eval.precision), "auto", 0, 0, PRECISIONS, NULL,
     "what eval and infer compute in; auto: bfloat16 on a GPU, else float32. Training evaluates in its own"},
    INT("log.interval", log.interval, "50", 1, 1000000, "log_interval print_freq", "steps between lines of metrics"),

    STRING("output", output, 0, "runs/classify/train", "output_dir work_dir project save_dir",
           "directory of the run; train-2, ... when it exists"),
    BOOL("exist_ok", exist_ok, "false", "overwrite", "write into an existing directory"),
    STRING("device", device, 0, "auto", "gpu accelerator",
           "where to compute: auto, cpu, cuda or cuda:N; auto: the first usable GPU, else the cpu"),
    STRING("base", base, OPTION_NULL | OPTION_UNSAVED, "null", "extends inherit",
           "config files only: another one to start from, relative to this one"),
};

const int config_table_count = COUNTOF(config_table);
