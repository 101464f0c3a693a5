// SPDX-License-Identifier: GPL-2.0-or-later
/* Sizes as people write and read them. */
#include "cli/cli.h"

#include <errno.h>
#include <string.h>

/* The power of 1,024 that a suffix stands for, or -1. */
static int suffix_power(const char *suffix)
{
	const char *letters = "KMGTPE", *at;

	if (suffix[0] == '\0' || strcmp(suffix, "B") == 0)
		return 0;
	at = strchr(letters, suffix[0] >= 'a' ? suffix[0] - 'a' + 'A' : suffix[0]);
	if (at == NULL || (suffix[1] != '\0' && strcmp(suffix + 1, "B") != 0 && strcmp(suffix + 1, "iB") != 0))
		return -1;
	return (int)(at - letters) + 1;
}

int cow_size_parse(const char *text, uint64_t *bytes)
{
	uint64_t whole = 0, fraction = 0, scale = 1;
	const char *p = text;
	unsigned __int128 value;
	int power;

	if (*p < '0' || *p > '9')
		return -EINVAL;
	for (; *p >= '0' && *p <= '9'; p++)
		if (__builtin_mul_overflow(whole, 10, &whole) || __builtin_add_overflow(whole, *p - '0', &whole))
			return -ERANGE;
	if (*p == '.') {
		if (p[1] < '0' || p[1] > '9')
			return -EINVAL;
		for (p++; *p >= '0' && *p <= '9'; p++) {
			if (scale > 100000000)
				continue; /* further digits do not count */
			fraction = fraction * 10 + (uint64_t)(*p - '0');
			scale *= 10;
		}
	}
	power = suffix_power(p);
	if (power < 0)
		return -EINVAL;
	value = ((unsigned __int128)whole << (10 * power)) + ((unsigned __int128)fraction << (10 * power)) / scale;
	if (value > UINT64_MAX >> 1)
		return -ERANGE;
	*bytes = (uint64_t)value;
	return 0;
}

char *cow_size_text(uint64_t bytes, char *text)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)bytes;
	unsigned unit = 0;

	while (value >= 1023.95 && unit < 6) {
		value /= 1024;
		unit++;
	}
	if (unit == 0)
		snprintf(text, COW_SIZE_TEXT, "%u B", (unsigned)bytes);
	else
		snprintf(text, COW_SIZE_TEXT, "%.1f %s", value, units[unit]);
	return text;
}
