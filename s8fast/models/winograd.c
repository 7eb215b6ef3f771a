/* The three transforms of Winograd's F(4x4, 3x3), for tiles of 4x4 outputs, eight channels at a time.
   winograd.py compiles this file and calls input, output and gradient. Formulas: nbs/11_models.winograd.ipynb. */
typedef float vec __attribute__((vector_size(32), aligned(4)));
enum { LANES = 8 };

/* one row or column of a tile: `from` and `to` are the distances between its elements */
static inline void input_1d(const vec *d, vec *o, int from, int to) {
    vec d0 = d[0], d1 = d[from], d2 = d[2*from], d3 = d[3*from], d4 = d[4*from], d5 = d[5*from];
    vec p = d4 - 4.f*d2, q = d3 - 4.f*d1, r = d4 - d2, s = 2.f*(d3 - d1);
    o[0] = 4.f*d0 - 5.f*d2 + d4;  o[to] = p + q;    o[2*to] = p - q;
    o[3*to] = r + s;              o[4*to] = r - s;  o[5*to] = 4.f*d1 - 5.f*d3 + d5;
}
static inline void output_1d(const vec *m, vec *o, int from, int to) {
    vec p = m[from] + m[2*from], q = m[from] - m[2*from], r = m[3*from] + m[4*from], s = m[3*from] - m[4*from];
    o[0] = m[0] + p + r;  o[to] = q + 2.f*s;  o[2*to] = p + 4.f*r;  o[3*to] = q + 8.f*s + m[5*from];
}
static inline void gradient_1d(const vec *g, vec *o, int from, int to) {
    vec p = g[0] + g[2*from], q = g[from] + g[3*from], r = g[0] + 4.f*g[2*from], s = 2.f*g[from] + 8.f*g[3*from];
    o[0] = g[0];  o[to] = p + q;  o[2*to] = p - q;  o[3*to] = r + s;  o[4*to] = r - s;  o[5*to] = g[3*from];
}

/* images are [n, h, w, c], transformed tiles [36, n * h/4 * w/4, c] */
#define EACH_TILE_AND_LANES \
    long across = w/4, each = h/4*across, tiles = n*each; \
    _Pragma("omp parallel for schedule(static) num_threads(threads)") \
    for (long t = 0; t < tiles; t++) \
        for (long k = 0, top = t%each/across*4, left = t%across*4, image = t/each; k < c; k += LANES)
#define PIXEL(x, i, j) ((x) + ((image*h + top + (i))*w + left + (j))*c + k)
#define PLANE(v, i) (*(vec *)((v) + ((i)*tiles + t)*c + k))

void input(float *x, float *v, long n, long h, long w, long c, int threads) {
    EACH_TILE_AND_LANES {
        vec d[36], e[36];
        for (int i = 0; i < 6; i++) for (int j = 0; j < 6; j++) {
            long y = top + i - 1, z = left + j - 1;
            d[6*i + j] = y >= 0 && y < h && z >= 0 && z < w ? *(vec *)PIXEL(x, i - 1, j - 1) : (vec){0};
        }
        for (int j = 0; j < 6; j++) input_1d(d + j, e + j, 6, 6);
        for (int i = 0; i < 6; i++) input_1d(e + 6*i, d + 6*i, 1, 1);
        for (int i = 0; i < 36; i++) PLANE(v, i) = d[i];
    }
}
void output(float *m, float *y, long n, long h, long w, long c, int threads) {
    EACH_TILE_AND_LANES {
        vec d[36], e[24], o[16];
        for (int i = 0; i < 36; i++) d[i] = PLANE(m, i);
        for (int j = 0; j < 6; j++) output_1d(d + j, e + j, 6, 6);
        for (int i = 0; i < 4; i++) output_1d(e + 6*i, o + 4*i, 1, 1);
        for (int i = 0; i < 4; i++) for (int j = 0; j < 4; j++) *(vec *)PIXEL(y, i, j) = o[4*i + j];
    }
}
void gradient(float *g, float *m, long n, long h, long w, long c, int threads) {
    EACH_TILE_AND_LANES {
        vec d[16], e[24], o[36];
        for (int i = 0; i < 4; i++) for (int j = 0; j < 4; j++) d[4*i + j] = *(vec *)PIXEL(g, i, j);
        for (int j = 0; j < 4; j++) gradient_1d(d + j, e + j, 4, 4);
        for (int i = 0; i < 6; i++) gradient_1d(e + 4*i, o + 6*i, 1, 1);
        for (int i = 0; i < 36; i++) PLANE(m, i) = o[i];
    }
}
