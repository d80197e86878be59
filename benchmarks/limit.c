/* A sweep of the simplest account, written by hand: what the sweeps of the package are measured
   against. Linear contract, cross margin, one bracket, fees, slippage, a band, funding, drawdown
   and two moments of returns; 64 sets go through the bars side by side, as vectors.

   cc -O3 -march=native -ffast-math -fopenmp benchmarks/limit.c -lm -o limit
   ./limit BARS SETS THREADS

   Prints the CPU nanoseconds per bar and set, times threads, best of five.
   benchmarks/ratios.py and benchmarks/sweep.py --limit call it. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { SIDE = 64 };
static const double FEE = 5e-4, SLIP = 1e-4, BAND = 0.02, KEEP = 0.005, PENALTY = 0.0125;

struct quote { double open, low, close, paid, inverse; };

struct sets {
    double cash[SIDE], held[SIDE], asked[SIDE], high[SIDE], fall[SIDE], last[SIDE];
    double sum[SIDE], square[SIDE], fees[SIDE], funding[SIDE], turnover[SIDE], lost[SIDE];
};

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* A set whose equity at the low of the bar is below maintenance is closed at its bankruptcy. */
static void liquidate(struct sets *s, const struct quote *q) {
    for (int j = 0; j < SIDE; j++) {
        double size = s->held[j];
        if (size == 0.0 || s->cash[j] + size * q->low > KEEP * size * q->low) continue;
        double price = fmin(-s->cash[j] / (size * (1.0 - KEEP)), q->open);
        double left = s->cash[j] + size * price - PENALTY * size * price;
        s->cash[j] = left > 0.0 ? left : 0.0;
        s->held[j] = 0.0;
        s->lost[j] += 1.0;
    }
}

static void pass(const struct quote *bars, long n, const double *target, const double *cap,
                 struct sets *s) {
    for (int j = 0; j < SIDE; j++) {
        s->cash[j] = s->high[j] = s->last[j] = 1e4;
        s->held[j] = s->asked[j] = s->fall[j] = s->sum[j] = s->square[j] = 0.0;
        s->fees[j] = s->funding[j] = s->turnover[j] = s->lost[j] = 0.0;
    }
    for (long t = 0; t < n; t++) {
        const struct quote q = bars[t];
        const double per_money = 1.0 / q.open;
        double failing = 0.0, falling = 0.0;
#pragma omp simd reduction(+ : failing)
        for (int j = 0; j < SIDE; j++) {
            double carried = s->held[j] * q.paid;
            double equity = fmax(s->cash[j] - carried + s->held[j] * q.open, 0.0);
            double trade = s->asked[j] * equity * per_money - s->held[j];
            trade = fabs(trade) * q.open > BAND * equity ? trade : 0.0;
            double price = q.open * (1.0 + copysign(SLIP, trade));
            double fee = fabs(trade) * price * FEE;
            s->cash[j] -= carried + trade * price + fee;
            s->held[j] += trade;
            s->funding[j] += carried;
            s->fees[j] += fee;
            s->turnover[j] += fabs(trade) * q.open;
            double worth = s->held[j] * q.low;
            failing += s->cash[j] + worth <= KEEP * worth && s->held[j] != 0.0 ? 1.0 : 0.0;
        }
        if (failing > 0.0) liquidate(s, &q);
#pragma omp simd reduction(+ : falling)
        for (int j = 0; j < SIDE; j++) {
            double equity = fmax(s->cash[j] + s->held[j] * q.close, 0.0);
            double earned = s->last[j] > 0.0 ? equity / s->last[j] - 1.0 : 0.0;
            s->last[j] = equity;
            s->sum[j] += earned;
            s->square[j] += earned * earned;
            s->high[j] = fmax(s->high[j], equity);
            falling += equity < s->high[j] * (1.0 - s->fall[j]) ? 1.0 : 0.0;
            s->asked[j] = fmin(target[j] * q.inverse, cap[j]);
        }
        if (falling > 0.0)
            for (int j = 0; j < SIDE; j++)
                s->fall[j] = fmax(s->fall[j], 1.0 - s->last[j] / s->high[j]);
    }
}

static double draw(unsigned long long *word) {
    *word = *word * 6364136223846793005ULL + 1442695040888963407ULL;
    return (double)(*word >> 11) * 0x1p-53;
}

int main(int count, char **words) {
    long n = count > 1 ? atol(words[1]) : 525600, sets = count > 2 ? atol(words[2]) : 512;
    int threads = count > 3 ? atoi(words[3]) : 1;
    struct quote *bars = malloc((size_t)n * sizeof *bars);
    double *target = malloc((size_t)sets * sizeof *target), *cap = malloc((size_t)sets * sizeof *cap);
    unsigned long long word = 1;
    double price = 2e4, deviation = 0.6 / sqrt(525600.0), best = INFINITY, total = 0.0;
    for (long t = 0; t < n; t++) {
        double normal = sqrt(-2.0 * log(draw(&word) + 1e-300)) * cos(6.283185307179586 * draw(&word));
        double open = price;
        price *= exp(deviation * normal);
        bars[t] = (struct quote){open, fmin(open, price) * (1.0 - deviation), price,
                                 t % 480 ? 0.0 : 1e-4 * open, 1.0 / (0.42 + 0.36 * draw(&word))};
    }
    for (long k = 0; k < sets; k++) {
        target[k] = 0.05 + 2.0 * (double)k / (double)sets;
        cap[k] = 1.0 + (double)(k * 7919 % 20);
    }
    for (int turn = 0; turn < 5; turn++) {
        double start = seconds();
#pragma omp parallel for schedule(dynamic) num_threads(threads) reduction(+ : total)
        for (long k = 0; k < sets / SIDE; k++) {
            struct sets own;
            pass(bars, n, target + k * SIDE, cap + k * SIDE, &own);
            for (int j = 0; j < SIDE; j++) total += own.last[j] + own.sum[j] + own.square[j] +
                own.fall[j] + own.fees[j] + own.funding[j] + own.turnover[j] + own.lost[j];
        }
        best = fmin(best, seconds() - start);
    }
    printf("%.4f ns per bar and set, %d threads, checksum %.6g\n",
           best / (double)n / (double)sets * 1e9 / threads, threads, total);
    return 0;
}
