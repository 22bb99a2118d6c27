/* colours.h - pictures that a small network learns to tell apart in seconds: two colours, four shapes. */
#ifndef MALA_TEST_COLOURS_H
#define MALA_TEST_COLOURS_H

/* In the order of their names: blue_bar, blue_cross, blue_ring, blue_square, red_bar ... */
enum { COLOUR_CLASSES = 8 };

/* The class of that number, "blue_ring". */
const char *colour_class(int index);

/* Writes DIR/train/CLASS/00.png ... and DIR/val/CLASS/00.png ..., so many pictures a class, of 40 x 36 pixels. Place,
 * size, shade and ground differ from picture to picture; the same call writes the same bytes. */
void colours_make(const char *dir, int train, int val);

/* Flags of a run that learns to tell the colours in 8 epochs of 6 steps on 6 pictures a class: half a second of
 * computing. */
#define LEARNS \
    "model.name=custom 'model.dims=[16,16,16,16]' 'model.depths=[1,1,1,1]' 'model.heads=[1,1,2,2]' " \
    "model.projection=32 input.size=32 aug.crop=pad aug.pad=2 train.batch_size=8 sched.epochs=8 " \
    "sched.warmup_epochs=1 sched.min_lr=1e-4 optim.lr_base_size=0 optim.lr=1e-2 train.smoothing=0 " \
    "model.drop_path=0 "

#endif
