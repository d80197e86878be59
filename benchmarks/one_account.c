/* One account of one linear cross position, written by hand: what the bar loop of the package is
   measured against. Funding, an order with a band, whole lots, fee and slippage, a bound on what
   the extremes of the bar may do, the check of the books, the sums of the tally, the causes of cuts
   "all" and "band", and eight recorded columns.

   cc -O3 -march=native benchmarks/one_account.c -lm -o one_account
   ./one_account BARS BAND

   Prints the CPU nanoseconds per bar, best of nine. benchmarks/ratios.py calls it. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { COLUMNS = 8, CUTS = 5 };
static const double FEE = 5e-4, SLIP = 1e-4, KEEP = 0.005, LOT = 1e-3, LEAST = 5.0, CAP = 20.0;
static const double START = 1e4, MOST_LEVERAGE = 100.0, TARGET = 0.6;

struct quote {
    double open, high, low, mark_open, mark_high, mark_low, mark_close, log_return, paid, inverse;
};

struct tally {
    double decay, product, inverse, top, low, low_top, needed, backing, profit, leverage, highest,
        initial, initial_share, equity, free_growth, fees, funding, slippage;
    double all[CUTS], band[CUTS];
    long fills;
};

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void count_cut(double *sums, double reach, double held, double inverse) {
    double cut = reach - held;
    sums[0] += 1.0;
    sums[1] += reach * inverse;
    sums[2] += held * inverse;
    sums[3] += cut * inverse;
    sums[4] += fabs(cut) * inverse;
}

/* What the account is at a close: drawdown, margin ratio, leverage and initial margin. */
static void count_close(struct tally *s, double equity, double unit, double notional) {
    s->inverse = 1.0 / equity;
    if (unit >= s->top) s->top = unit;
    if (unit * s->low_top < s->low * s->top) {
        s->low = unit;
        s->low_top = s->top;
    }
    double needed = KEEP * notional;
    if (needed * s->backing > s->needed * equity) {
        s->needed = needed;
        s->backing = equity;
    }
    double leverage = notional * s->inverse, initial = notional / MOST_LEVERAGE;
    s->leverage += leverage;
    s->highest = fmax(s->highest, leverage);
    s->initial += initial;
    s->initial_share += initial * s->inverse;
    s->equity += equity;
}

/* Returns whether the books balanced, and the account lived, at each bar. */
static int pass(const struct quote *bars, long n, double band, double **columns, struct tally *s) {
    double cash = START, held = 0.0, entry = 0.0, asked = NAN, equity = START, unit = 1.0;
    double marked = 0.0, mark = bars[0].mark_close;
    *s = (struct tally){.product = 1.0, .inverse = 1.0 / START, .top = 1.0, .low = 1.0,
                        .low_top = 1.0, .backing = 1.0};
    for (long t = 0; t < n; t++) {
        const struct quote q = bars[t];
        int is_quiet = 1;
        if (q.paid != 0.0) {
            double payment = held * q.paid;
            cash -= payment;
            s->funding += payment;
            is_quiet = 0;
        }

        double worth = cash + held * q.open, notional = held * q.open;
        if (asked == asked && worth > 0.0) {
            double reach = fmin(asked, CAP) * worth;
            if (fabs(reach - notional) > band * worth) {
                double wanted = trunc(reach / q.open / LOT + 1e-6) * LOT, change = wanted - held;
                if (fabs(change) * q.open >= LEAST) {
                    double price = q.open * (1.0 + copysign(SLIP, change));
                    double fee = fabs(change) * price * FEE;
                    cash -= change * price + fee;
                    s->fees += fee;
                    s->slippage += fabs(change) * q.open * SLIP;
                    if (fabs(wanted) > fabs(held))
                        entry = (fabs(held) * entry + fabs(change) * price) / fabs(wanted);
                    held = wanted;
                    marked = q.open;
                    s->fills++;
                    is_quiet = 0;
                }
            }
            count_cut(s->all, reach, notional, 1.0 / worth);
            if (is_quiet && fabs(reach - notional) > 1e-9 * fmax(reach, fabs(notional)))
                count_cut(s->band, reach, notional, 1.0 / worth);
        }

        int is_ordered = q.low <= q.open && q.open <= q.high;
        is_ordered = is_ordered && q.mark_low <= q.mark_open && q.mark_open <= q.mark_high;
        double at_low = held * q.mark_low, at_high = held * q.mark_high;
        double least = cash + fmin(at_low - KEEP * fabs(at_low), at_high - KEEP * fabs(at_high));
        if (held != 0.0 && !(is_ordered && least > 1e-9 * fabs(held * q.mark_open))) return 0;

        double after = cash + held * q.mark_close, profit = held * (q.mark_close - marked);
        notional = fabs(held) * q.mark_close;
        marked = q.mark_close;
        if (after <= 1e-5) return 0;
        if (is_quiet && !(fabs(after - equity - profit) <= 1e-9 * fmax(after, START))) return 0;
        equity = after;
        unit = equity / START;
        s->free_growth += 1e-9 * (1.0 + s->free_growth);
        s->profit += profit;
        double share = held * s->inverse;
        s->decay += share * (mark * q.log_return);
        s->product *= 1.0 + share * (q.mark_close - mark);
        if (s->product > 1e100 || s->product < 1e-100) {
            s->decay += log(s->product);
            s->product = 1.0;
        }
        count_close(s, equity, unit, notional);
        mark = q.mark_close;
        asked = fmin(TARGET * q.inverse, 3.0);

        const double row[COLUMNS] = {equity, cash, unit, 1.0, profit, held, entry, asked};
        for (int k = 0; k < COLUMNS; k++) columns[k][t] = row[k];
    }
    return 1;
}

static double draw(unsigned long long *word) {
    *word = *word * 6364136223846793005ULL + 1442695040888963407ULL;
    return (double)(*word >> 11) * 0x1p-53;
}

int main(int count, char **words) {
    long n = count > 1 ? atol(words[1]) : 525600;
    double band = count > 2 ? atof(words[2]) : 0.02;
    struct quote *bars = malloc((size_t)n * sizeof *bars);
    double *columns[COLUMNS];
    for (int k = 0; k < COLUMNS; k++) columns[k] = calloc((size_t)n, sizeof(double));
    unsigned long long word = 1;
    double price = 2e4, deviation = 0.6 / sqrt(525600.0), variance = deviation * deviation;
    for (long t = 0; t < n; t++) {
        double normal = sqrt(-2.0 * log(draw(&word) + 1e-300)) * cos(6.283185307179586 * draw(&word));
        double open = price, moved = deviation * normal;
        price *= exp(moved);
        variance += (moved * moved - variance) / 104.0;
        double high = fmax(open, price) * (1.0 + deviation);
        double low = fmin(open, price) * (1.0 - deviation);
        bars[t] = (struct quote){open, high, low, open, high, low, price, moved,
                                 t % 480 || t == 0 ? 0.0 : 1e-4 * open,
                                 1.0 / sqrt(variance * 525600.0)};
    }
    double best = INFINITY;
    struct tally sums;
    for (int turn = 0; turn < 9; turn++) {
        double start = seconds();
        if (!pass(bars, n, band, columns, &sums)) {
            fprintf(stderr, "the account did not live through all bars\n");
            return 1;
        }
        best = fmin(best, seconds() - start);
    }
    printf("%.4f ns per bar, %.3f fills per bar, checksum %.6g\n", best / (double)n * 1e9,
           (double)sums.fills / (double)n, sums.equity + sums.decay + columns[0][n - 1]);
    return 0;
}
