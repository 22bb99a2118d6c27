/* synth_mask.c - room data: outlines of masks, exact along pixel edges first, then with fewer corners as long as
 * filling the polygon still gives the mask. Pieces are 4-connected, what surrounds them 8-connected. */
#include "data/synth_mask.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double IOU_KEPT = 0.97, TOLERANCE = 0.8, TOLERANCE_LEAST = 0.3; /* pixels */

/* piece: 0 outside the mask, else a piece's number. cut: no connection to the pixel on the left. */
typedef struct {
    int width, height;
    int *piece;
    bool *cut;
    int *stack; /* room for every pixel */
    bool *seen; /* scratch of the search for holes */
} Map;

static void flood_piece(Map *m, int from, int number) {
    int w = m->width, depth = 0;
    m->stack[depth++] = from;
    m->piece[from] = number;
    while (depth > 0) {
        int at = m->stack[--depth], x = at % w, y = at / w;
        int next[4] = {x > 0 && !m->cut[at] ? at - 1 : -1, x + 1 < w && !m->cut[at + 1] ? at + 1 : -1,
                       y > 0 ? at - w : -1, y + 1 < m->height ? at + w : -1};
        for (int i = 0; i < 4; i++)
            if (next[i] >= 0 && m->piece[next[i]] == -1) {
                m->piece[next[i]] = number;
                m->stack[depth++] = next[i];
            }
    }
}

/* Numbers the pieces from 1; returns how many. */
static int number_pieces(Map *m) {
    int count = 0, pixels = m->width * m->height;
    for (int i = 0; i < pixels; i++)
        if (m->piece[i] > 0) m->piece[i] = -1;
    for (int i = 0; i < pixels; i++)
        if (m->piece[i] == -1) flood_piece(m, i, ++count);
    return count;
}

/* Marks what is connected to from without touching the piece; gives its leftmost and rightmost columns. */
static void flood_outside(Map *m, int from, int number, int *left, int *right) {
    int w = m->width, depth = 0;
    *left = *right = from % w;
    m->stack[depth++] = from;
    m->seen[from] = true;
    while (depth > 0) {
        int at = m->stack[--depth], x = at % w, y = at / w;
        *left = MIN(*left, x), *right = MAX(*right, x);
        for (int v = MAX(y - 1, 0); v <= MIN(y + 1, m->height - 1); v++)
            for (int u = MAX(x - 1, 0); u <= MIN(x + 1, w - 1); u++) {
                int next = v * w + u;
                if (m->seen[next] || m->piece[next] == number) continue;
                m->seen[next] = true;
                m->stack[depth++] = next;
            }
    }
}

/* Cuts a piece down the middle of its first hole; false when it has none. */
static bool cut_hole(Map *m, int number) {
    int w = m->width, h = m->height, left, right;
    memset(m->seen, 0, (size_t)w * (size_t)h);
    for (int at = 0; at < w * h; at++) {
        bool border = at % w == 0 || at % w == w - 1 || at / w == 0 || at / w == h - 1;
        if (border && !m->seen[at] && m->piece[at] != number) flood_outside(m, at, number, &left, &right);
    }
    for (int at = 0; at < w * h; at++) {
        if (m->seen[at] || m->piece[at] == number) continue;
        flood_outside(m, at, number, &left, &right);
        int column = (left + right + 1) / 2;
        for (int y = 0; y < h; y++)
            if (m->piece[y * w + column] == number) m->cut[y * w + column] = true;
        return true;
    }
    return false;
}

static bool in_piece(const Map *m, int x, int y, int number) {
    return x >= 0 && y >= 0 && x < m->width && y < m->height && m->piece[y * m->width + x] == number;
}

/* Walks along pixel edges with the piece on the right hand, from its topmost row's leftmost pixel. */
static Polygon outline(const Map *m, int number) {
    static const int step[4][2] = {{1, 0}, {0, 1}, {-1, 0}, {0, -1}};
    /* the pixels ahead of a corner, on the left and on the right of each direction */
    static const int ahead_left[4][2] = {{0, -1}, {0, 0}, {-1, 0}, {-1, -1}};
    static const int ahead_right[4][2] = {{0, 0}, {-1, 0}, {-1, -1}, {0, -1}};
    int start = 0;
    while (m->piece[start] != number) start++;
    int x0 = start % m->width, y0 = start / m->width, x = x0, y = y0, way = 0, capacity = 0;
    Polygon p = {0};
    do {
        if (p.points == capacity) p.xy = mem_resize(p.xy, (size_t)(capacity = 2 * capacity + 16), 2 * sizeof(int));
        p.xy[2 * p.points] = x, p.xy[2 * p.points + 1] = y;
        p.points++;
        int turn = 0;
        while (turn == 0) {
            x += step[way][0], y += step[way][1];
            if (!in_piece(m, x + ahead_right[way][0], y + ahead_right[way][1], number))
                turn = 1;
            else if (in_piece(m, x + ahead_left[way][0], y + ahead_left[way][1], number))
                turn = 3;
        }
        way = (way + turn) % 4;
    } while (x != x0 || y != y0 || way != 0);
    return p;
}

/* Keeps the corners between first and last (cyclic) that lie farther than tolerance from what is left: Douglas and
 * Peucker's way of drawing a line with fewer points. */
static void keep_corners(bool *keep, const Polygon *p, int first, int last, double tolerance) {
    int n = p->points, farthest = -1;
    double ax = p->xy[2 * first], ay = p->xy[2 * first + 1];
    double ex = p->xy[2 * last] - ax, ey = p->xy[2 * last + 1] - ay, length = ex * ex + ey * ey, most = 0;
    for (int i = (first + 1) % n; i != last; i = (i + 1) % n) {
        double wx = p->xy[2 * i] - ax, wy = p->xy[2 * i + 1] - ay;
        double t = length > 0 ? (wx * ex + wy * ey) / length : 0;
        t = t < 0 ? 0 : t > 1 ? 1 : t;
        double dx = wx - t * ex, dy = wy - t * ey, d = dx * dx + dy * dy;
        if (d > most) most = d, farthest = i;
    }
    if (most <= tolerance * tolerance) return;
    keep[farthest] = true;
    keep_corners(keep, p, first, farthest, tolerance);
    keep_corners(keep, p, farthest, last, tolerance);
}

static Polygon simplified(const Polygon *p, double tolerance) {
    int n = p->points, opposite = 0;
    long most = -1;
    for (int i = 1; i < n; i++) {
        long dx = p->xy[2 * i] - p->xy[0], dy = p->xy[2 * i + 1] - p->xy[1];
        if (dx * dx + dy * dy > most) most = dx * dx + dy * dy, opposite = i;
    }
    bool *keep = mem_zalloc((size_t)n, sizeof *keep);
    keep[0] = keep[opposite] = true;
    keep_corners(keep, p, 0, opposite, tolerance);
    keep_corners(keep, p, opposite, 0, tolerance);
    Polygon q = {.xy = mem_zalloc((size_t)n, 2 * sizeof(int))};
    for (int i = 0; i < n; i++)
        if (keep[i]) {
            memcpy(q.xy + 2 * q.points, p->xy + 2 * i, 2 * sizeof(int));
            q.points++;
        }
    free(keep);
    return q;
}

enum { FLIP = 1, TIE = 2 };

/* Where a row of pixels goes in and out of the polygon, by the even-odd rule: FLIP from this pixel's middle on; TIE
 * when an edge passes through the middle. Corners are whole numbers, so no row's middle meets one. */
static void mark_row(uint8_t *marks, const Polygon *p, int row, int width) {
    double y = row + 0.5;
    memset(marks, 0, (size_t)width + 1);
    for (int i = 0, j = p->points - 1; i < p->points; j = i++) {
        double ax = p->xy[2 * i], ay = p->xy[2 * i + 1], bx = p->xy[2 * j], by = p->xy[2 * j + 1];
        if ((ay > y) == (by > y)) continue;
        double at = ax + (y - ay) / (by - ay) * (bx - ax) - 0.5, nearest = floor(at + 0.5);
        if (fabs(at - nearest) < 1e-6) {
            marks[(int)nearest] |= TIE;
            at = nearest;
        }
        marks[(int)floor(at) + 1] ^= FLIP;
    }
}

/* Edges at 45 degrees pass through the middles of pixels, and programs differ on which side those lie: such a pixel
 * counts as wrong, whatever it is. */
static double iou(const Map *m, const Polygon *p, int number) {
    uint8_t *marks = mem_zalloc((size_t)m->width + 1, 1);
    int both = 0, any = 0;
    for (int y = 0; y < m->height; y++) {
        int inside = 0;
        mark_row(marks, p, y, m->width);
        for (int x = 0; x < m->width; x++) {
            inside ^= marks[x] & FLIP;
            bool mine = m->piece[y * m->width + x] == number, tie = marks[x] & TIE;
            both += mine && inside && !tie;
            any += mine || inside || tie;
        }
    }
    free(marks);
    return (double)both / (double)any;
}

static Polygon piece_polygon(const Map *m, int number) {
    Polygon exact = outline(m, number);
    for (double tolerance = TOLERANCE; tolerance >= TOLERANCE_LEAST; tolerance *= 0.7) {
        Polygon fewer = simplified(&exact, tolerance);
        if (fewer.points >= 3 && iou(m, &fewer, number) >= IOU_KEPT) {
            free(exact.xy);
            return fewer;
        }
        free(fewer.xy);
    }
    return exact;
}

/* Bounds and area; marks the mask as piece 1. False when it is empty. */
static bool find_bounds(MaskTrace *out, Map *m, const uint8_t *ids, int id) {
    int right = -1, bottom = -1;
    *out = (MaskTrace){.x = m->width, .y = m->height};
    for (int y = 0; y < m->height; y++)
        for (int x = 0; x < m->width; x++) {
            if (ids[y * m->width + x] != id) continue;
            m->piece[y * m->width + x] = 1;
            out->x = MIN(out->x, x), out->y = MIN(out->y, y);
            right = MAX(right, x), bottom = MAX(bottom, y);
            out->area++;
        }
    out->width = right + 1 - out->x, out->height = bottom + 1 - out->y;
    if (out->area == 0) *out = (MaskTrace){0};
    return out->area > 0;
}

bool mask_trace(MaskTrace *out, const uint8_t *ids, int width, int height, int id) {
    size_t pixels = (size_t)width * (size_t)height;
    Map m = {.width = width, .height = height};
    m.piece = mem_zalloc(pixels, sizeof *m.piece), m.stack = mem_zalloc(pixels, sizeof *m.stack);
    m.cut = mem_zalloc(pixels, sizeof *m.cut), m.seen = mem_zalloc(pixels, sizeof *m.seen);
    bool found = find_bounds(out, &m, ids, id);
    int pieces = 0;
    for (bool cut = found; cut;) {
        pieces = number_pieces(&m);
        cut = false;
        for (int k = 1; k <= pieces; k++) cut |= cut_hole(&m, k);
    }
    if (found) out->polygons = mem_zalloc((size_t)pieces, sizeof *out->polygons);
    out->polygon_count = pieces;
    for (int k = 0; k < pieces; k++) out->polygons[k] = piece_polygon(&m, k + 1);
    free(m.piece);
    free(m.stack);
    free(m.cut);
    free(m.seen);
    return found;
}

void mask_trace_free(MaskTrace *trace) {
    for (int i = 0; i < trace->polygon_count; i++) free(trace->polygons[i].xy);
    free(trace->polygons);
    *trace = (MaskTrace){0};
}

int mask_runs(uint32_t **counts, const uint8_t *ids, int width, int height, int id) {
    uint32_t *runs = mem_zalloc((size_t)width * (size_t)height + 1, sizeof *runs);
    int count = 1;
    bool inside = false;
    for (int x = 0; x < width; x++)
        for (int y = 0; y < height; y++) {
            if ((ids[y * width + x] == id) != inside) {
                inside = !inside;
                count++;
            }
            runs[count - 1]++;
        }
    *counts = runs;
    return count;
}
