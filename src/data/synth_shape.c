/* synth_shape.c - room data: the six solids, their distances, their reach. Refuses nothing: sizes are the maker's own.
 */
#include "data/synth_shape.h"

static const Mat UPRIGHT = {{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};

static Part *add(Parts *parts, ShapeKind shape, int material, Vec centre) {
    CHECK(parts->count < PARTS_MAX, "a scene of more than %d parts", PARTS_MAX);
    Part *part = &parts->part[parts->count++];
    *part = (Part){.shape = shape, .material = material, .centre = centre, .axes = UPRIGHT};
    return part;
}

Part *parts_box(Parts *parts, int material, Vec centre, Vec half, float round) {
    Part *part = add(parts, SHAPE_BOX, material, centre);
    part->size[0] = half.x, part->size[1] = half.y, part->size[2] = half.z;
    part->round = round;
    part->bound = vec_length(half);
    return part;
}

Part *parts_ellipsoid(Parts *parts, int material, Vec centre, Vec half) {
    Part *part = add(parts, SHAPE_ELLIPSOID, material, centre);
    part->size[0] = half.x, part->size[1] = half.y, part->size[2] = half.z;
    part->bound = MAX(half.x, MAX(half.y, half.z));
    return part;
}

Part *parts_rod(Parts *parts, int material, Vec from, Vec to, float radius, float round) {
    Part *part = add(parts, SHAPE_ROD, material, vec_mix(from, to, 0.5f));
    Vec way = vec_sub(to, from);
    float length = vec_length(way);
    Vec y = vec_scale(way, 1 / length);
    Vec x = vec_unit(vec_cross(y, fabsf(y.z) < 0.7f ? (Vec){0, 0, 1} : (Vec){1, 0, 0}));
    part->axes = (Mat){{x, y, vec_cross(x, y)}};
    part->size[0] = radius, part->size[1] = length / 2;
    part->round = round;
    part->bound = sqrtf(radius * radius + length * length / 4);
    return part;
}

Part *parts_arc(Parts *parts, int material, Vec centre, float ring, float tube, float half_turns) {
    Part *part = add(parts, SHAPE_ARC, material, centre);
    part->size[0] = ring, part->size[1] = tube, part->size[2] = half_turns;
    part->arc_sin = sin_turns(half_turns), part->arc_cos = cos_turns(half_turns);
    part->bound = ring + tube;
    return part;
}

/* Copies the outline relative to centre, in x as well for a prism; a lathe turns about x = 0 and stays there. */
static void set_outline(Part *part, const Vec2 *outline, int n, float round) {
    CHECK(n >= 3 && n <= OUTLINE_MAX, "an outline of %d points", n);
    Vec2 low = outline[0], high = outline[0];
    for (int i = 1; i < n; i++) {
        low = (Vec2){MIN(low.x, outline[i].x), MIN(low.y, outline[i].y)};
        high = (Vec2){MAX(high.x, outline[i].x), MAX(high.y, outline[i].y)};
    }
    part->centre.x = part->shape == SHAPE_PRISM ? (low.x + high.x) / 2 : 0;
    part->centre.y = (low.y + high.y) / 2;
    float farthest = 0;
    for (int i = 0; i < n; i++) {
        Vec2 p = {outline[i].x - part->centre.x, outline[i].y - part->centre.y};
        part->outline[i] = p;
        farthest = MAX(farthest, p.x * p.x + p.y * p.y);
    }
    part->points = n;
    part->round = round;
    part->bound = sqrtf(farthest + part->size[0] * part->size[0]) + round;
}

Part *parts_lathe(Parts *parts, int material, const Vec2 *outline, int n, float round) {
    Part *part = add(parts, SHAPE_LATHE, material, (Vec){0, 0, 0});
    set_outline(part, outline, n, round);
    return part;
}

Part *parts_prism(Parts *parts, int material, float z, float half_depth, const Vec2 *outline, int n, float round) {
    Part *part = add(parts, SHAPE_PRISM, material, (Vec){0, 0, z});
    part->size[0] = half_depth;
    set_outline(part, outline, n, round);
    return part;
}

void part_place(Part *part, const Mat *turn, float scale, Vec shift) {
    part->centre = vec_add(vec_scale(mat_out(turn, part->centre), scale), shift);
    part->axes = mat_after(part->axes, *turn);
    bool angle_in_size = part->shape == SHAPE_ARC;
    for (int i = 0; i < (angle_in_size ? 2 : 3); i++) part->size[i] *= scale;
    for (int i = 0; i < part->points; i++)
        part->outline[i] = (Vec2){part->outline[i].x * scale, part->outline[i].y * scale};
    part->round *= scale;
    part->bound *= scale;
}

/* An edge of a lathe's outline that lies on the axis bounds nothing: it counts for inside, not for distance. */
static float outline_distance(const Part *part, float x, float y) {
    float nearest = 1e30f;
    bool inside = false;
    for (int i = 0, j = part->points - 1; i < part->points; j = i++) {
        Vec2 a = part->outline[i], b = part->outline[j];
        float ex = b.x - a.x, ey = b.y - a.y, wx = x - a.x, wy = y - a.y;
        if ((a.y > y) != (b.y > y) && (ex * wy > ey * wx) == (ey > 0)) inside = !inside;
        if (part->shape == SHAPE_LATHE && a.x == 0 && b.x == 0) continue;
        float t = unitf((wx * ex + wy * ey) / (ex * ex + ey * ey));
        float dx = wx - ex * t, dy = wy - ey * t;
        nearest = MIN(nearest, dx * dx + dy * dy);
    }
    return inside ? -sqrtf(nearest) : sqrtf(nearest);
}

static float ellipsoid_distance(const float *r, Vec p) {
    Vec a = {p.x / r[0], p.y / r[1], p.z / r[2]};
    Vec b = {a.x / r[0], a.y / r[1], a.z / r[2]};
    float k0 = vec_length(a), k1 = vec_length(b);
    if (k1 == 0) return -MIN(r[0], MIN(r[1], r[2]));
    return 0.85f * k0 * (k0 - 1) / k1;
}

/* distance to the corner of a slab: a across, b along; negative inside both */
static float corner_distance(float a, float b) {
    float x = MAX(a, 0), y = MAX(b, 0);
    return MIN(MAX(a, b), 0) + sqrtf(x * x + y * y);
}

float part_distance(const Part *part, Vec point) {
    Vec p = mat_in(&part->axes, vec_sub(point, part->centre));
    const float *size = part->size;
    switch (part->shape) {
    case SHAPE_BOX: {
        Vec q = {fabsf(p.x) - size[0] + part->round, fabsf(p.y) - size[1] + part->round,
                 fabsf(p.z) - size[2] + part->round};
        Vec outside = {MAX(q.x, 0), MAX(q.y, 0), MAX(q.z, 0)};
        return vec_length(outside) + MIN(MAX(q.x, MAX(q.y, q.z)), 0) - part->round;
    }
    case SHAPE_ELLIPSOID:
        return ellipsoid_distance(size, p);
    case SHAPE_ROD:
        return corner_distance(sqrtf(p.x * p.x + p.z * p.z) - size[0] + part->round,
                               fabsf(p.y) - size[1] + part->round) -
               part->round;
    case SHAPE_ARC: {
        float x = fabsf(p.x), along = part->arc_cos * x > part->arc_sin * p.y ? part->arc_sin * x + part->arc_cos * p.y
                                                                              : sqrtf(x * x + p.y * p.y);
        return sqrtf(MAX(vec_dot(p, p) + size[0] * size[0] - 2 * size[0] * along, 0)) - size[1];
    }
    case SHAPE_LATHE:
        return outline_distance(part, sqrtf(p.x * p.x + p.z * p.z), p.y) - part->round;
    case SHAPE_PRISM:
        return corner_distance(outline_distance(part, p.x, p.y), fabsf(p.z) - size[0]) - part->round;
    }
    return 1e30f;
}

/* The gradient by differences along the four corners of a tetrahedron. */
Vec part_normal(const Part *part, Vec p) {
    float step = 1e-3f;
    Vec sum = {0, 0, 0};
    static const Vec corner[4] = {{1, -1, -1}, {-1, -1, 1}, {-1, 1, -1}, {1, 1, 1}};
    for (int i = 0; i < 4; i++) sum = vec_along(sum, corner[i], part_distance(part, vec_along(p, corner[i], step)));
    float length = vec_length(sum);
    return length > 0 ? vec_scale(sum, 1 / length) : (Vec){0, 1, 0};
}

float part_reach(const Part *part, Vec direction) {
    Vec d = mat_in(&part->axes, direction);
    const float *size = part->size;
    float flat = sqrtf(d.x * d.x + d.z * d.z), most = -1e30f;
    switch (part->shape) {
    case SHAPE_BOX:
        most = fabsf(d.x) * size[0] + fabsf(d.y) * size[1] + fabsf(d.z) * size[2];
        break;
    case SHAPE_ELLIPSOID:
        most = vec_length((Vec){d.x * size[0], d.y * size[1], d.z * size[2]});
        break;
    case SHAPE_ROD:
        most = flat * size[0] + fabsf(d.y) * size[1];
        break;
    case SHAPE_ARC:
        for (int i = -4; i <= 4; i++) {
            float turns = size[2] * (float)i / 4;
            most = MAX(most, size[0] * (d.x * sin_turns(turns) + d.y * cos_turns(turns)));
        }
        most += size[1];
        break;
    case SHAPE_LATHE:
        for (int i = 0; i < part->points; i++) most = MAX(most, flat * part->outline[i].x + d.y * part->outline[i].y);
        most += part->round;
        break;
    case SHAPE_PRISM:
        for (int i = 0; i < part->points; i++) most = MAX(most, d.x * part->outline[i].x + d.y * part->outline[i].y);
        most += fabsf(d.z) * size[0] + part->round;
        break;
    }
    return vec_dot(part->centre, direction) + most;
}
