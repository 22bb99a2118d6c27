/* onnx.h - a graph and its weights as an ONNX file, opset 17, standard ops only.
 *
 * The file comes from walking the evaluation graph, unfused, from its input to the outputs asked for: each node becomes
 * ONNX nodes through its op's row in onnx_ops.c. Weights keep the names and shapes of the released checkpoints.
 *
 * Layout: ONNX's convolutions want (B,C,H,W), so every map (B,H,W,C) of the graph stands in the file as (B,C,H,W), and
 * only LayerNorm turns it back and forth; pictures u8 stay (B,H,W,3) as cameras and decoders give them, and are turned
 * by the normalize op. The batch is always free ("batch").
 *
 * Refused: training and fused graphs (ops without a row), and files beyond protobuf's 2 GiB. */
#ifndef MALA_ONNX_H
#define MALA_ONNX_H

#include "io/tensor_file.h"
#include "run/state.h"

#define ONNX_OPSET 17

typedef struct {
    Val value;
    const char *name; /* in the file */
} OnnxOutput;

typedef struct {
    const char *name; /* of the graph in the file */
    const OnnxOutput *outputs;
    int output_count;
    bool dynamic_size; /* height and width are free too: rotary tables are then computed inside, from the shape */
    const StoredPair *metadata; /* for metadata_props */
    size_t metadata_count;
} OnnxSpec;

/* Writes g, its V_INPUT values as the inputs under their own names, with the weights of s (ROLE_WEIGHT, ROLE_BUFFER) to
 * path, atomically, one weight in memory at a time. g: an evaluation graph for any batch; with dynamic_size any height
 * and width too. False: EXIT_BUG (an op without an ONNX form, naming the node), EXIT_INPUT (metadata that are not
 * UTF-8, a model too large), EXIT_MEMORY, EXIT_IO. */
bool onnx_export(const char *path, const Graph *g, State *s, const OnnxSpec *spec, Err *err);

#endif
