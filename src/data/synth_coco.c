/* synth_coco.c - room data: what is known about pictures, in COCO's words. */
#include "data/synth_coco.h"

#include <stdlib.h>

#include "base/file.h"
#include "base/json.h"

enum { VISIBLE_MIN = 16, LABEL_IGNORE = 255 }; /* VISIBLE_MIN: pixels */

void picture_annotate(SynthPicture *picture, const char *name, uint8_t *ids, int width, int height,
                      const SynthObject *objects, int count) {
    uint8_t label[256] = {0};
    *picture = (SynthPicture){.name = mem_strdup(name), .width = width, .height = height};
    picture->annotation = mem_zalloc((size_t)count, sizeof *picture->annotation);
    for (int i = 0; i < count; i++) {
        MaskTrace trace;
        label[i + 1] = LABEL_IGNORE;
        if (!mask_trace(&trace, ids, width, height, i + 1)) continue;
        if (trace.area < VISIBLE_MIN) {
            mask_trace_free(&trace);
            continue;
        }
        SynthAnnotation *a = &picture->annotation[picture->count++];
        *a = (SynthAnnotation){.kind = objects[i].kind, .crowd = objects[i].crowd, .trace = trace};
        if (a->crowd)
            a->run_count = mask_runs(&a->runs, ids, width, height, i + 1);
        else
            label[i + 1] = (uint8_t)(objects[i].kind + 1);
    }
    for (int i = 0; i < width * height; i++) ids[i] = label[ids[i]];
}

void picture_free(SynthPicture *picture) {
    for (int i = 0; i < picture->count; i++) {
        mask_trace_free(&picture->annotation[i].trace);
        free(picture->annotation[i].runs);
    }
    free(picture->annotation);
    free(picture->name);
    *picture = (SynthPicture){0};
}

static void key_int(JsonWriter *w, const char *key, int value) {
    json_write_key(w, key);
    json_write_int(w, value);
}

static void key_text(JsonWriter *w, const char *key, const char *value) {
    json_write_key(w, key);
    json_write_string(w, value);
}

static void write_segmentation(JsonWriter *w, const SynthPicture *picture, const SynthAnnotation *a) {
    json_write_key(w, "segmentation");
    if (a->crowd) {
        json_write_object(w);
        json_write_key(w, "counts");
        json_write_array(w);
        for (int i = 0; i < a->run_count; i++) json_write_uint(w, a->runs[i]);
        json_write_end(w);
        json_write_key(w, "size");
        json_write_array(w);
        json_write_int(w, picture->height);
        json_write_int(w, picture->width);
        json_write_end(w);
        json_write_end(w);
        return;
    }
    json_write_array(w);
    for (int i = 0; i < a->trace.polygon_count; i++) {
        json_write_array(w);
        for (int k = 0; k < 2 * a->trace.polygons[i].points; k++) json_write_int(w, a->trace.polygons[i].xy[k]);
        json_write_end(w);
    }
    json_write_end(w);
}

static void write_annotation(JsonWriter *w, const SynthPicture *picture, int image, const SynthAnnotation *a, int id) {
    const int box[4] = {a->trace.x, a->trace.y, a->trace.width, a->trace.height};
    json_write_object(w);
    key_int(w, "id", id);
    key_int(w, "image_id", image);
    key_int(w, "category_id", a->kind + 1);
    json_write_key(w, "bbox");
    json_write_array(w);
    for (int i = 0; i < 4; i++) json_write_int(w, box[i]);
    json_write_end(w);
    key_int(w, "area", a->trace.area);
    key_int(w, "iscrowd", a->crowd);
    write_segmentation(w, picture, a);
    json_write_end(w);
}

bool coco_write(const char *path, const SynthPicture *pictures, int count, Err *err) {
    JsonWriter w = {0};
    json_write_object(&w);
    json_write_key(&w, "images");
    json_write_array(&w);
    for (int i = 0; i < count; i++) {
        json_write_object(&w);
        key_int(&w, "id", i + 1);
        key_text(&w, "file_name", pictures[i].name);
        key_int(&w, "width", pictures[i].width);
        key_int(&w, "height", pictures[i].height);
        json_write_end(&w);
    }
    json_write_end(&w);
    json_write_key(&w, "annotations");
    json_write_array(&w);
    for (int i = 0, id = 1; i < count; i++)
        for (int k = 0; k < pictures[i].count; k++)
            write_annotation(&w, &pictures[i], i + 1, &pictures[i].annotation[k], id++);
    json_write_end(&w);
    json_write_key(&w, "categories");
    json_write_array(&w);
    for (int i = 0; i < SYNTH_KINDS; i++) {
        json_write_object(&w);
        key_int(&w, "id", i + 1);
        key_text(&w, "name", synth_kinds[i].name);
        json_write_end(&w);
    }
    json_write_end(&w);
    json_write_end(&w);
    json_writer_text(&w);
    bool ok = file_write(path, w.text, w.count, err);
    json_writer_free(&w);
    return ok;
}
