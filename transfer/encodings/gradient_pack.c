/* Packs strips and unpacks them: the form is that of transfer/encodings/packed.py, which does the same with numpy and is
 * what this is tested against. Loaded by transfer/encodings/native.py, without a line of Python here, so that it can be
 * run under sanitizers and by a fuzzer. Works on SPAN samples of a row at a time, which stay in the first cache.
 * Refuses to do: taking memory, and any hint of trusting what is unpacked.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "words are taken as they lie in memory: elsewhere numpy does it"
#endif

enum { GROUP = 8, SPAN = 128 * GROUP, GROUP_BYTES_MAX = 16 };

/* Turn 8 bytes of 8 bits: bit i of byte k becomes bit k of byte i (Warren, Hacker's Delight, 7-3). */
static uint64_t turn(uint64_t x)
{
    uint64_t t = (x ^ (x >> 7)) & 0x00AA00AA00AA00AAu;
    x ^= t ^ (t << 7);
    t = (x ^ (x >> 14)) & 0x0000CCCC0000CCCCu;
    x ^= t ^ (t << 14);
    t = (x ^ (x >> 28)) & 0x00000000F0F0F0F0u;
    return x ^ t ^ (t << 28);
}

/* The bytes of `x` up to its last one that is not 0. */
static unsigned used_bytes(uint64_t x)
{
    return x ? 8 - (unsigned)__builtin_clzll(x) / 8 : 0;
}

static uint64_t load_bytes(const uint8_t *from, unsigned count)
{
    uint64_t x = 0;
    memcpy(&x, from, count);
    return x;
}

static uint64_t first_bytes(uint64_t x, unsigned count)
{
    return count < 8 ? x & (((uint64_t)1 << 8 * count) - 1) : x;
}

static unsigned width_of(const uint8_t *widths, size_t group)
{
    unsigned nibble = group & 1 ? widths[group / 2] >> 4 : widths[group / 2] & 15;
    return nibble == 15 ? 16 : nibble;
}

/* Samples of 2 bytes where they are, those of 1 byte copied to `room`. */
static const uint16_t *widened(const uint8_t *from, size_t count, unsigned sample_bytes, uint16_t *room)
{
    if (sample_bytes == 2)
        return (const uint16_t *)(const void *)from;
    for (size_t i = 0; i < count; i++)
        room[i] = from[i];
    return room;
}

static void store_sums(uint16_t *restrict out, const uint16_t *restrict row, const uint16_t *restrict above, size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] = (uint16_t)(row[i] + above[i]);
}

/* Fold a difference of 16 bits, or of 8 where so many are unused: 0 -1 1 -2 2 ... */
static inline uint16_t fold(uint16_t difference, unsigned unused_bits)
{
    int16_t number = (int16_t)((int16_t)(uint16_t)(difference << unused_bits) >> unused_bits);
    return (uint16_t)((uint16_t)((uint16_t)number << 1) ^ (uint16_t)(number >> 15));
}

/* Write `count` folded gradients, low bytes and high bytes apart. `left`: the sample before, less the one above that.
 * Inlined, because a shift by a number that the compiler does not know takes a third of all the time.
 */
static inline void fold_row(const uint16_t *restrict row, const uint16_t *restrict above, size_t count, uint16_t left,
                            unsigned unused_bits, uint8_t *restrict low, uint8_t *restrict high)
{
    uint16_t first = fold((uint16_t)(row[0] - above[0] - left), unused_bits);
    low[0] = (uint8_t)first;
    high[0] = (uint8_t)(first >> 8);
    for (size_t i = 1; i < count; i++) {
        uint16_t folded = fold((uint16_t)(row[i] - above[i] - (uint16_t)(row[i - 1] - above[i - 1])), unused_bits);
        low[i] = (uint8_t)folded;
        high[i] = (uint8_t)(folded >> 8);
    }
}

/* Pack rows x columns samples of 1 or 2 bytes, aligned, into `out`, which has room for the widths, 16 bytes a group and
 * 16 more. Returns how many bytes that made.
 */
size_t fascicle_pack(const uint8_t *samples, size_t rows, size_t columns, unsigned sample_bytes, uint8_t *out)
{
    static const uint16_t zeros[SPAN];
    size_t groups = rows * ((columns + GROUP - 1) / GROUP), group = 0, row_bytes = columns * sample_bytes;
    uint8_t *widths = out, *bits = out + (groups + 1) / 2;
    uint16_t wide_row[SPAN], wide_above[SPAN];
    uint8_t low[SPAN], high[SPAN];

    memset(widths, 0, (groups + 1) / 2);
    for (size_t r = 0; r < rows; r++, samples += row_bytes) {
        uint16_t left = 0;
        for (size_t start = 0; start < columns; start += SPAN) {
            size_t count = columns - start < SPAN ? columns - start : SPAN;
            const uint8_t *from = samples + start * sample_bytes;
            const uint16_t *row = widened(from, count, sample_bytes, wide_row);
            const uint16_t *above = r ? widened(from - row_bytes, count, sample_bytes, wide_above) : zeros;
            if (count % GROUP) {
                memset(low + count / GROUP * GROUP, 0, GROUP);
                memset(high + count / GROUP * GROUP, 0, GROUP);
            }
            if (sample_bytes == 2)
                fold_row(row, above, count, left, 0, low, high);
            else
                fold_row(row, above, count, left, 8, low, high);
            left = (uint16_t)(row[count - 1] - above[count - 1]);
            for (size_t i = 0; i < count; i += GROUP, group++) {
                uint64_t lower = turn(load_bytes(low + i, 8)), upper = load_bytes(high + i, 8);
                unsigned width = used_bytes(lower);
                memcpy(bits, &lower, 8);
                if (upper) {
                    upper = turn(upper);
                    memcpy(bits + 8, &upper, 8);
                    width = 8 + used_bytes(upper);
                }
                widths[group / 2] |= (uint8_t)((width < 15 ? width : 15) << 4 * (group & 1));
                bits += width == 15 ? 16 : width;
            }
        }
    }
    return (size_t)(bits - out);
}

/* Tell whether the widths are those of such a strip, and account for every stored byte. */
static int is_sound(const uint8_t *stored, size_t stored_bytes, size_t groups, unsigned width_max)
{
    size_t expected = (groups + 1) / 2;
    if (stored_bytes < expected)
        return 0;
    for (size_t group = 0; group < groups; group++) {
        unsigned width = width_of(stored, group);
        if (width > width_max)
            return 0;
        expected += width;
    }
    return expected == stored_bytes;
}

/* Unpack what fascicle_pack made into rows x columns samples, aligned. Returns 0, or -1 where `stored` is not such a strip. */
int fascicle_unpack(const uint8_t *stored, size_t stored_bytes, size_t rows, size_t columns, unsigned sample_bytes,
                    uint8_t *samples)
{
    size_t groups = rows * ((columns + GROUP - 1) / GROUP), group = 0, row_bytes = columns * sample_bytes;
    const uint8_t *widths = stored, *bits = stored + (groups + 1) / 2, *end = stored + stored_bytes;
    static const uint16_t zeros[SPAN];
    uint16_t row[SPAN], wide_above[SPAN];
    uint8_t low[SPAN], high[SPAN];

    if (!is_sound(stored, stored_bytes, groups, 8 * sample_bytes))
        return -1;
    for (size_t r = 0; r < rows; r++, samples += row_bytes) {
        uint16_t sum = 0;
        for (size_t start = 0; start < columns; start += SPAN) {
            size_t count = columns - start < SPAN ? columns - start : SPAN;
            uint8_t *out = samples + start * sample_bytes;
            for (size_t i = 0; i < count; i += GROUP, group++) {
                unsigned width = width_of(widths, group);
                uint64_t lower, upper = 0;
                if (end - bits >= GROUP_BYTES_MAX) {
                    lower = first_bytes(load_bytes(bits, 8), width);
                    if (width > 8)
                        upper = turn(first_bytes(load_bytes(bits + 8, 8), width - 8));
                } else { /* no byte behind the end is read */
                    lower = load_bytes(bits, width < 8 ? width : 8);
                    if (width > 8)
                        upper = turn(load_bytes(bits + 8, width - 8));
                }
                lower = turn(lower);
                memcpy(low + i, &lower, 8);
                memcpy(high + i, &upper, 8);
                bits += width;
            }
            for (size_t i = 0; i < count; i++) {
                uint16_t folded = (uint16_t)(low[i] | high[i] << 8);
                row[i] = (uint16_t)(folded >> 1 ^ -(folded & 1));
            }
            for (size_t i = 0; i < count; i++)
                row[i] = sum = (uint16_t)(sum + row[i]);
            const uint16_t *above = r ? widened(out - row_bytes, count, sample_bytes, wide_above) : zeros;
            if (sample_bytes == 2)
                store_sums((uint16_t *)(void *)out, row, above, count);
            else
                for (size_t i = 0; i < count; i++)
                    out[i] = (uint8_t)(row[i] + above[i]);
        }
    }
    return 0;
}
