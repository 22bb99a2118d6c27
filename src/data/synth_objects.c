/* synth_objects.c - room data: the kinds of objects the picture maker knows, told apart by how they are built and by
 * nothing else: materials are drawn elsewhere, from one distribution for all. Units: an object is about one tall. */
#include "data/synth_scene.h"

static void build_bottle(Parts *parts, Rng *rng) {
    float r = draw(rng, 0.15f, 0.21f), neck = draw(rng, 0.045f, 0.07f);
    float body = draw(rng, 0.45f, 0.6f), shoulder = body + draw(rng, 0.08f, 0.2f);
    Vec2 outline[] = {
        {0, 0},    {r, 0}, {r, body}, {neck, shoulder}, {neck, 0.9f}, {neck + 0.02f, 0.91f}, {neck + 0.02f, 0.95f},
        {0, 0.95f}};
    parts_lathe(parts, 0, outline, COUNTOF(outline), 0.01f);
    float low = draw(rng, 0.08f, 0.16f), high = body - draw(rng, 0.04f, 0.12f);
    parts_rod(parts, 1, (Vec){0, low, 0}, (Vec){0, high, 0}, r + 0.015f, 0.005f);
    parts_rod(parts, 2, (Vec){0, 0.93f, 0}, (Vec){0, draw(rng, 1.0f, 1.05f), 0}, neck + 0.035f, 0.01f);
}

static void build_car(Parts *parts, Rng *rng) {
    float nose = draw(rng, 0.24f, 0.3f), belt = draw(rng, 0.32f, 0.36f), roof = draw(rng, 0.5f, 0.58f);
    float hood = draw(rng, 0.14f, 0.28f), tail = draw(rng, -0.5f, -0.34f), width = draw(rng, 0.19f, 0.24f);
    float front = hood - draw(rng, 0.1f, 0.16f), back = tail + draw(rng, 0.06f, 0.14f);
    Vec2 hull[] = {{-0.52f, 0.12f}, {0.52f, 0.12f}, {0.53f, nose - 0.04f}, {0.48f, nose},         {hood, belt},
                   {front, roof},   {back, roof},   {tail, belt + 0.02f},  {-0.53f, belt - 0.01f}};
    parts_prism(parts, 0, 0, width - 0.02f, hull, COUNTOF(hull), 0.02f);
    Vec2 window[] = {{hood - 0.05f, belt + 0.02f},
                     {front - 0.01f, roof - 0.03f},
                     {back + 0.01f, roof - 0.03f},
                     {tail + 0.05f, belt + 0.03f}};
    parts_prism(parts, 2, 0, width + 0.006f, window, COUNTOF(window), 0);
    float middle = (front + back) / 2;
    parts_box(parts, 0, (Vec){middle, (belt + roof) / 2, 0}, (Vec){0.014f, (roof - belt) / 2, width + 0.012f}, 0);
    float wheel = draw(rng, 0.095f, 0.125f), rear = draw(rng, -0.36f, -0.3f), front_axle = draw(rng, 0.28f, 0.34f);
    for (int i = 0; i < 4; i++) {
        float x = i / 2 ? front_axle : rear, z = i % 2 ? width : -width, side = i % 2 ? 1 : -1;
        parts_rod(parts, 1, (Vec){x, wheel, z - side * 0.07f}, (Vec){x, wheel, z + side * 0.02f}, wheel, 0.015f);
        parts_rod(parts, 2, (Vec){x, wheel, z}, (Vec){x, wheel, z + side * 0.03f}, wheel * 0.5f, 0);
        parts_ellipsoid(parts, 2, (Vec){i / 2 ? 0.53f : -0.53f, nose - 0.05f, z * 0.7f}, (Vec){0.03f, 0.035f, 0.045f});
    }
}

static void build_chair(Parts *parts, Rng *rng) {
    float w = draw(rng, 0.22f, 0.27f), seat = draw(rng, 0.42f, 0.48f), leg = draw(rng, 0.022f, 0.035f);
    float lean = draw(rng, 0.0f, 0.09f);
    parts_box(parts, 1, (Vec){0, seat, 0}, (Vec){w + 0.02f, 0.03f, w + 0.02f}, 0.015f);
    for (int i = 0; i < 4; i++) {
        float x = i % 2 ? w - leg : leg - w, z = i / 2 ? w - leg : leg - w;
        parts_rod(parts, 0, (Vec){x * 1.08f, 0, z * 1.08f}, (Vec){x, seat, z}, leg, 0.01f);
    }
    float z = leg - w;
    for (int i = -1; i <= 1; i += 2) {
        float x = (float)i * (w - leg);
        parts_rod(parts, 0, (Vec){x, seat, z}, (Vec){x, 1, z - lean}, leg, 0.01f);
    }
    if (draw_chance(rng, 0.5f)) {
        parts_box(parts, 0, (Vec){0, 0.83f, z - lean * 0.7f}, (Vec){w, draw(rng, 0.1f, 0.16f), 0.018f}, 0.01f);
        return;
    }
    int bars = draw_int(rng, 2, 3);
    for (int i = 0; i < bars; i++) {
        float y = 0.94f - (float)i * 0.4f / (float)bars;
        parts_box(parts, 0, (Vec){0, y, z - lean * (y - seat) / (1 - seat)}, (Vec){w, 0.035f, 0.015f}, 0.008f);
    }
}

static void build_fish(Parts *parts, Rng *rng) {
    float h = draw(rng, 0.17f, 0.24f), d = draw(rng, 0.08f, 0.12f), tail = draw(rng, 0.16f, 0.24f);
    parts_ellipsoid(parts, 0, (Vec){0.06f, 0.3f, 0}, (Vec){0.4f, h, d});
    float notch = draw(rng, 0.0f, 0.1f);
    Vec2 fluke[] = {{-0.26f, 0.3f}, {-0.56f, 0.3f + tail}, {-0.56f + notch, 0.3f}, {-0.56f, 0.3f - tail}};
    parts_prism(parts, 1, 0, 0.015f, fluke, COUNTOF(fluke), 0.012f);
    float fin = draw(rng, 0.08f, 0.16f), top = 0.3f + h;
    Vec2 dorsal[] = {{0.22f, top - 0.05f}, {0.02f, top + fin}, {-0.14f, top + fin * 0.7f}, {-0.16f, top - 0.06f}};
    parts_prism(parts, 1, 0, 0.012f, dorsal, COUNTOF(dorsal), 0.012f);
    Vec2 belly[] = {{0.14f, 0.34f - h}, {-0.08f, 0.34f - h}, {-0.1f, 0.3f - h - fin * 0.8f}};
    parts_prism(parts, 1, 0, 0.012f, belly, COUNTOF(belly), 0.01f);
    for (int side = -1; side <= 1; side += 2)
        parts_ellipsoid(parts, 2, (Vec){0.3f, 0.36f, (float)side * d * 0.72f}, (Vec){0.045f, 0.045f, 0.03f});
}

static void build_house(Parts *parts, Rng *rng) {
    float w = draw(rng, 0.28f, 0.36f), d = draw(rng, 0.22f, 0.36f), wall = draw(rng, 0.36f, 0.48f);
    float roof = wall + draw(rng, 0.26f, 0.4f), eave = draw(rng, 0.05f, 0.1f);
    parts_box(parts, 0, (Vec){0, wall / 2, 0}, (Vec){w, wall / 2, d}, 0);
    Vec2 gable[] = {{-w - eave, wall - 0.02f}, {w + eave, wall - 0.02f}, {0, roof}};
    parts_prism(parts, 1, 0, d + eave * 0.7f, gable, COUNTOF(gable), 0.01f);
    float chimney = draw(rng, 0.4f, 0.6f) * w;
    if (draw_chance(rng, 0.5f)) chimney = -chimney;
    float z = draw(rng, -0.5f, 0.5f) * d;
    parts_box(parts, 0, (Vec){chimney, roof - 0.08f, z}, (Vec){0.05f, 0.14f, 0.05f}, 0);
    float door = draw(rng, -0.4f, 0.4f) * w;
    parts_box(parts, 2, (Vec){door, 0.13f, d}, (Vec){0.07f, 0.13f, 0.012f}, 0);
    float pane = door > 0 ? -0.55f * w : 0.55f * w;
    parts_box(parts, 2, (Vec){pane, 0.22f, d}, (Vec){0.07f, 0.07f, 0.012f}, 0);
    for (int i = 0; i < 4; i++)
        parts_box(parts, 2, (Vec){i / 2 ? w : -w, 0.22f, (i % 2 ? 0.45f : -0.45f) * d}, (Vec){0.012f, 0.07f, 0.06f}, 0);
}

static void build_key(Parts *parts, Rng *rng) {
    float bow = draw(rng, 0.15f, 0.19f), tube = draw(rng, 0.035f, 0.05f), shaft = draw(rng, 0.035f, 0.045f);
    parts_arc(parts, 0, (Vec){0, 1 - bow, 0}, bow, tube, 0.5f);
    parts_rod(parts, 0, (Vec){0, 0, 0}, (Vec){0, 1 - 2 * bow, 0}, shaft, 0.01f);
    if (draw_chance(rng, 0.5f))
        parts_rod(parts, 1, (Vec){0, 0.92f - 2 * bow, 0}, (Vec){0, 0.97f - 2 * bow, 0}, shaft + 0.025f, 0.01f);
    int teeth = draw_int(rng, 2, 3);
    for (int i = 0; i < teeth; i++) {
        float length = draw(rng, 0.07f, 0.1f), y = 0.05f + 0.105f * (float)i;
        parts_box(parts, 0, (Vec){length, y, 0}, (Vec){length, 0.03f, 0.025f}, 0.005f);
    }
}

static void build_ladder(Parts *parts, Rng *rng) {
    float w = draw(rng, 0.16f, 0.22f), taper = draw(rng, 0.75f, 1), rail = draw(rng, 0.024f, 0.036f);
    int rungs = draw_int(rng, 4, 6);
    for (int side = -1; side <= 1; side += 2) {
        float x = (float)side * w;
        parts_rod(parts, 0, (Vec){x, 0, 0}, (Vec){x * taper, 1, 0}, rail, 0.008f);
    }
    for (int i = 0; i < rungs; i++) {
        float y = ((float)i + 0.5f) / (float)rungs, x = w * (1 + (taper - 1) * y);
        parts_rod(parts, 1, (Vec){-x, y, 0}, (Vec){x, y, 0}, rail * 0.85f, 0.005f);
    }
}

static void build_lamp(Parts *parts, Rng *rng) {
    float foot = draw(rng, 0.15f, 0.2f), low = draw(rng, 0.5f, 0.62f), wide = draw(rng, 0.24f, 0.31f);
    float narrow = draw(rng, 0.09f, 0.15f), high = draw(rng, 0.92f, 1.02f);
    parts_rod(parts, 0, (Vec){0, 0, 0}, (Vec){0, 0.05f, 0}, foot, 0.015f);
    parts_rod(parts, 0, (Vec){0, 0.02f, 0}, (Vec){0, low + 0.2f, 0}, draw(rng, 0.02f, 0.032f), 0);
    if (draw_chance(rng, 0.4f)) {
        float r = draw(rng, 0.06f, 0.1f);
        parts_ellipsoid(parts, 2, (Vec){0, draw(rng, 0.18f, 0.3f), 0}, (Vec){r, r, r});
    }
    Vec2 shade[] = {{wide, low}, {narrow, high}, {narrow - 0.015f, high}, {wide - 0.015f, low}};
    parts_lathe(parts, 1, shade, COUNTOF(shade), 0.008f);
    parts_ellipsoid(parts, 2, (Vec){0, low + 0.2f, 0}, (Vec){0.06f, 0.07f, 0.06f});
}

static void build_mug(Parts *parts, Rng *rng) {
    float r = draw(rng, 0.27f, 0.34f), h = draw(rng, 0.62f, 0.8f), flare = draw(rng, 0.9f, 1.12f), top = r * flare;
    Vec2 wall[] = {{0, 0}, {r, 0}, {top, h}, {top - 0.03f, h}, {r - 0.035f, 0.05f}, {0, 0.05f}};
    parts_lathe(parts, 0, wall, COUNTOF(wall), 0.012f);
    float ring = h * draw(rng, 0.27f, 0.33f), tube = draw(rng, 0.035f, 0.05f);
    Part *handle = parts_arc(parts, 0, (Vec){(r + top) / 2, h / 2, 0}, ring, tube, 0.25f);
    handle->axes = mat_turn(2, -0.25f);
    if (draw_chance(rng, 0.5f)) {
        float y = h * draw(rng, 0.4f, 0.8f), at = r + (top - r) * y / h;
        Part *band = parts_arc(parts, 1, (Vec){0, y, 0}, at, 0.025f, 0.5f);
        band->axes = mat_turn(0, 0.25f);
    }
}

static void build_mushroom(Parts *parts, Rng *rng) {
    float foot = draw(rng, 0.11f, 0.17f), neck = draw(rng, 0.08f, 0.11f), under = draw(rng, 0.42f, 0.56f);
    float r = draw(rng, 0.34f, 0.46f), h = draw(rng, 0.26f, 0.42f);
    Vec2 stem[] = {{0, 0},
                   {foot, 0},
                   {foot * 1.05f, 0.08f},
                   {neck, under * 0.6f},
                   {neck * 1.1f, under + 0.05f},
                   {0, under + 0.05f}};
    parts_lathe(parts, 1, stem, COUNTOF(stem), 0.01f);
    Vec2 cap[9] = {{0, under + 0.05f}, {r * 0.9f, under - 0.01f}};
    for (int i = 0; i < 7; i++) {
        float turns = 0.25f * (float)i / 6;
        cap[i + 2] = (Vec2){i == 6 ? 0 : r * cos_turns(turns), under + h * sin_turns(turns)};
    }
    parts_lathe(parts, 0, cap, COUNTOF(cap), 0.012f);
    int spots = draw_chance(rng, 0.5f) ? draw_int(rng, 4, 7) : 0;
    for (int i = 0; i < spots; i++) {
        float around = ((float)i + draw(rng, 0, 0.6f)) / (float)spots, up = draw(rng, 0.06f, 0.18f);
        float flat = r * cos_turns(up), size = draw(rng, 0.035f, 0.06f);
        Vec at = {flat * sin_turns(around), under + h * sin_turns(up), flat * cos_turns(around)};
        parts_ellipsoid(parts, 2, at, (Vec){size, size, size});
    }
}

static void build_star(Parts *parts, Rng *rng) {
    float outer = 0.5f, inner = draw(rng, 0.19f, 0.25f);
    Vec2 outline[10];
    for (int i = 0; i < 10; i++) {
        float r = i % 2 ? inner : outer, turns = (float)i / 10;
        outline[i] = (Vec2){r * sin_turns(turns), 0.5f + r * cos_turns(turns)};
    }
    float depth = draw(rng, 0.03f, 0.07f);
    parts_prism(parts, 0, 0, depth, outline, COUNTOF(outline), draw(rng, 0.01f, 0.03f));
    if (draw_chance(rng, 0.4f)) {
        float r = draw(rng, 0.08f, 0.13f);
        parts_ellipsoid(parts, 1, (Vec){0, 0.5f, depth}, (Vec){r, r, r * 0.6f});
    }
}

static void build_umbrella(Parts *parts, Rng *rng) {
    float r = draw(rng, 0.44f, 0.52f), h = draw(rng, 0.26f, 0.36f), rim = 0.98f - h;
    Vec2 canopy[12];
    for (int i = 0; i < 6; i++) {
        float s = sin_turns(0.05f * (float)i), c = cos_turns(0.05f * (float)i);
        canopy[i] = (Vec2){r * s, rim + h * c};
        canopy[11 - i] = (Vec2){MAX(r * s - 0.015f, 0), rim + h * c - 0.02f};
    }
    parts_lathe(parts, 0, canopy, COUNTOF(canopy), 0.006f);
    float grip = draw(rng, 0.08f, 0.11f), shaft = draw(rng, 0.018f, 0.026f);
    parts_rod(parts, 1, (Vec){0, grip, 0}, (Vec){0, 1.05f, 0}, shaft, 0);
    Part *hook = parts_arc(parts, 2, (Vec){-grip, grip, 0}, grip, shaft * 1.5f, 0.25f);
    hook->axes = mat_turn(2, 0.5f);
}

const SynthKind synth_kinds[SYNTH_KINDS] = {
    {"bottle", build_bottle, .yaw = 0.5f, .roll = 0.05f},
    {"car", build_car, .yaw = 0.12f, .roll = 0.01f, .both_sides = true},
    {"chair", build_chair, .yaw = 0.2f, .roll = 0.02f},
    {"fish", build_fish, .yaw = 0.11f, .roll = 0.08f, .lean = 0.5f, .both_sides = true},
    {"house", build_house, .yaw = 0.17f, .roll = 0.01f},
    {"key", build_key, .yaw = 0.07f, .roll = 0.3f, .lean = 1},
    {"ladder", build_ladder, .yaw = 0.1f, .roll = 0.12f, .lean = 1},
    {"lamp", build_lamp, .yaw = 0.5f, .roll = 0.04f},
    {"mug", build_mug, .yaw = 0.12f, .roll = 0.03f, .both_sides = true},
    {"mushroom", build_mushroom, .yaw = 0.5f, .roll = 0.06f, .lean = 0.5f},
    {"star", build_star, .yaw = 0.1f, .roll = 0.5f, .lean = 1},
    {"umbrella", build_umbrella, .yaw = 0.5f, .roll = 0.14f, .lean = 1},
};
