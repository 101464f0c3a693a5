/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Superblocks. Input: its bytes, from the version on (behind magic and checksum). */
#include <assert.h>
#include <string.h>

#include "store/super.h"
#include "test/fuzz/fuzz.h"

/* What is accepted is used without another look. */
static void use(const struct cow_super *super)
{
	assert(super->generation != 0 && super->total_blocks <= COW_VOLUME_BLOCKS_MAX);
	for (unsigned i = 0; i < COW_ROOTS; i++)
		assert(cow_ptr_is_null(super->roots[i]) ||
		       (super->roots[i].addr < super->total_blocks && !cow_layout_is_system(super->roots[i].addr)));
	if ((super->incompat & COW_INCOMPAT_LOG) == 0)
		return;
	for (uint32_t i = 0; i < super->log.blocks; i++) {
		uint64_t block = cow_layout_ring(super->log.start, i);

		assert(block < super->total_blocks && !cow_layout_is_system(block));
		assert(i == 0 || block > cow_layout_ring(super->log.start, i - 1));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t block[COW_BLOCK] = "cowlinks", again[COW_BLOCK];
	struct cow_super super;

	fuzz_blind = true;
	memcpy(block + 16, data, size < COW_SUPER_BYTES - 16 ? size : COW_SUPER_BYTES - 16);
	cow_super_encode(&(struct cow_super){0}, again);
	memcpy(block + 8, again + 8, 8); /* the checksum */
	if (cow_super_decode(block, &super) != 0)
		return 0;
	use(&super);
	cow_super_encode(&super, again);
	if (super.compat == 0 && super.ro_compat == 0) /* a later version may use what is reserved */
		assert(memcmp(block, again, COW_SUPER_BYTES) == 0);
	return 0;
}
