/* mavit.h - MAViT: "Rectifying Magnitude Neglect in Linear Attention", ICCV 2025; InLine attention: "Bridging the
 * Divide: Reconsidering Softmax and Linear Attention", NeurIPS 2024. Four stages at strides 4, 8, 16, 32. */
#ifndef MALA_MAVIT_H
#define MALA_MAVIT_H

#include "model/nn.h"

#define MAVIT_STAGES 4

typedef struct {
    int dims[MAVIT_STAGES], depths[MAVIT_STAGES], heads[MAVIT_STAGES];
    AttentionKind attention[MAVIT_STAGES];
    float layer_scale[MAVIT_STAGES]; /* start value of gamma_1 and gamma_2 */
    double mlp_ratio;                /* hidden channels: (int)(mlp_ratio * dim) */
    float drop_path;                 /* rate of the last block; the first has 0, linear between */
    int projection;                  /* channels before the classifier */
    int classes;
} MavitConfig;

/* The stage outputs, before downsampling: stage[i] (B, H/4/2^i, W/4/2^i, dims[i]).
 * x: normalised images (B,H,W,3), H and W multiples of 32. */
void mavit_features(Nn *nn, const MavitConfig *config, Val x, Val stage[MAVIT_STAGES]);

/* The backbone of the released detection and segmentation code: each stage output through a LayerNorm of its own,
 * extra_norms.i.norm. A classifier's checkpoint has no such weights: they start as ones and zeros. */
void mavit_extra_norms(Nn *nn, Val out[MAVIT_STAGES], const Val stage[MAVIT_STAGES]);

/* logits (B, classes): projection, BatchNorm, SiLU, mean over the map, linear. */
Val mavit_classifier(Nn *nn, const MavitConfig *config, Val last_stage);

#endif
