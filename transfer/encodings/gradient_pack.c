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

static void load_samples(const uint8_t *from, size_t count, unsigned sample_bytes, uint16_t *samples)
{
    if (sample_bytes == 2)
        memcpy(samples, from, 2 * count);
    else
        for (size_t i = 0; i < count; i++)
            samples[i] = from[i];
}

static void store_samples(const uint16_t *samples, size_t count, unsigned sample_bytes, uint8_t *to)
{
    if (sample_bytes == 2)
        memcpy(to, samples, 2 * count);
    else
        for (size_t i = 0; i < count; i++)
            to[i] = (uint8_t)samples[i];
}

/* Write `count` folded differences, low bytes and high bytes apart. `row` and `above` begin one sample earlier. */
static void fold(const uint16_t *restrict row, const uint16_t *restrict above, size_t count, unsigned unused_bits,
                 uint8_t *restrict low, uint8_t *restrict high)
{
    for (size_t i = 0; i < count; i++) {
        uint16_t gradient = (uint16_t)(row[i + 1] - above[i + 1] - row[i] + above[i]);
        int16_t difference = (int16_t)((int16_t)(uint16_t)(gradient << unused_bits) >> unused_bits);
        uint16_t folded = (uint16_t)((uint16_t)difference << 1 ^ difference >> 15);
        low[i] = (uint8_t)folded;
        high[i] = (uint8_t)(folded >> 8);
    }
}

/* Pack rows x columns samples of 1 or 2 bytes into `out`, which has room for the widths, 16 bytes a group and 16 more.
 * Returns how many bytes that made.
 */
size_t fascicle_pack(const uint8_t *samples, size_t rows, size_t columns, unsigned sample_bytes, uint8_t *out)
{
    size_t groups = rows * ((columns + GROUP - 1) / GROUP), group = 0, row_bytes = columns * sample_bytes;
    uint8_t *widths = out, *bits = out + (groups + 1) / 2;
    uint16_t row[SPAN + 1], above[SPAN + 1] = {0};
    uint8_t low[SPAN], high[SPAN];

    memset(widths, 0, (groups + 1) / 2);
    for (size_t r = 0; r < rows; r++, samples += row_bytes) {
        row[0] = above[0] = 0;
        for (size_t start = 0; start < columns; start += SPAN) {
            size_t count = columns - start < SPAN ? columns - start : SPAN;
            load_samples(samples + start * sample_bytes, count, sample_bytes, row + 1);
            if (r)
                load_samples(samples - row_bytes + start * sample_bytes, count, sample_bytes, above + 1);
            memset(low + count / GROUP * GROUP, 0, count % GROUP ? GROUP : 0);
            memset(high + count / GROUP * GROUP, 0, count % GROUP ? GROUP : 0);
            fold(row, above, count, 16 - 8 * sample_bytes, low, high);
            row[0] = row[count];
            above[0] = above[count];
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

/* Unpack what fascicle_pack made into rows x columns samples. Returns 0, or -1 where `stored` is not such a strip. */
int fascicle_unpack(const uint8_t *stored, size_t stored_bytes, size_t rows, size_t columns, unsigned sample_bytes,
                    uint8_t *samples)
{
    size_t groups = rows * ((columns + GROUP - 1) / GROUP), group = 0, row_bytes = columns * sample_bytes;
    const uint8_t *widths = stored, *bits = stored + (groups + 1) / 2, *end = stored + stored_bytes;
    uint16_t row[SPAN], above[SPAN] = {0};
    uint8_t low[SPAN], high[SPAN];

    if (!is_sound(stored, stored_bytes, groups, 8 * sample_bytes))
        return -1;
    for (size_t r = 0; r < rows; r++, samples += row_bytes) {
        uint16_t sum = 0;
        for (size_t start = 0; start < columns; start += SPAN) {
            size_t count = columns - start < SPAN ? columns - start : SPAN;
            uint8_t *out = samples + start * sample_bytes;
            for (size_t i = 0; i < count; i += GROUP, group++) {
                unsigned width = width_of(widths, group), lower_width = width < 8 ? width : 8;
                uint64_t lower, upper = 0;
                int is_last = end - bits < GROUP_BYTES_MAX; /* no byte behind the end is read */
                lower = is_last ? load_bytes(bits, lower_width) : first_bytes(load_bytes(bits, 8), lower_width);
                if (width > 8)
                    upper = is_last ? load_bytes(bits + 8, width - 8) : first_bytes(load_bytes(bits + 8, 8), width - 8);
                lower = turn(lower);
                upper = turn(upper);
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
            if (r)
                load_samples(out - row_bytes, count, sample_bytes, above);
            for (size_t i = 0; i < count; i++)
                row[i] = (uint16_t)(row[i] + above[i]);
            store_samples(row, count, sample_bytes, out);
        }
    }
    return 0;
}
