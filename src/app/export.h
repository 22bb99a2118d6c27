/* export.h - a model file as it leaves the program: the network in one of its forms, with its weights. */
#ifndef MALA_EXPORT_H
#define MALA_EXPORT_H

#include "lib/model_file.h"

/* The classifier, or the backbone of the released detection and segmentation code: no proj, norm and head, but
 * extra_norms on the four stage outputs, under the released keys. */
typedef enum { EXPORT_CLASSIFIER, EXPORT_BACKBONE } ExportForm;

typedef struct {
    ExportForm form;
    bool preprocess; /* pixels u8 (B,H,W,3) come in, instead of normalised f32 images */
} ExportOptions;

typedef struct {
    ExportOptions options;
    Graph *graph;               /* evaluation, unfused, for a batch of one picture of the config's size */
    Val input;                  /* images, or with preprocess pixels: (1, H, W, 3) */
    Val logits;                 /* classifier: (B, classes) */
    Val features[MAVIT_STAGES]; /* backbone: (B, H/4/2^i, W/4/2^i, dims[i]) */
    State state;                /* the form's weights, read from the file on demand: state_require before state_read */
} ExportModel;

/* The file must stay open as long. extra_norms that it has not are ones and zeros, and the log says so.
 * False: EXIT_INPUT (the weights do not fit), EXIT_MEMORY. After a failure nothing needs closing. */
bool export_open(ExportModel *out, const ModelFile *m, Backend *backend, ExportOptions options, Err *err);
void export_close(ExportModel *e);

/* Does it compute? Runs the form's network once, on a small noise: values may be finite and their products not. For
 * what carries no golden logits, which are computed anyway. False: EXIT_INPUT, EXIT_MEMORY. */
bool export_check_computes(const ModelFile *m, Backend *backend, ExportForm form, Err *err);

/* ONNX (io/onnx.h). Input "images" f32 (batch,3,H,W), normalised, or, with preprocess, "pixels" u8 (batch,H,W,3), RGB.
 * Outputs "logits" (batch, classes), or "stage0" .. "stage3" (batch, dims[i], H/4/2^i, W/4/2^i). dynamic_size: H and W
 * are free multiples of 32. license may be NULL: what the weights file says, if anything.
 * metadata_props: task, names (JSON list; classifier), imgsz, mean, std, crop_pct, interpolation, stride, version,
 * license, weights_sha256 (io/seal.h's, of the file that it was made of). */
bool export_onnx(const char *path, ExportModel *e, const ModelFile *m, bool dynamic_size, const char *license,
                 Err *err);

#endif
