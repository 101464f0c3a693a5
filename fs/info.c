/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a volume says about itself. */
#include <string.h>

#include "cow.h"
#include "fs/core/reservation.h"
#include "fs/reclaim/space.h"

/* [locked] */
static void tell(const struct cow_volume *volume, struct cow_info *info)
{
	const struct cow_store *store = volume->store;

	*info = (struct cow_info){
		.format_version = store->super.version,
		.read_only = store->read_only,
		.generation = store->super.generation,
		.total_blocks = store->super.total_blocks,
		.free_blocks = cow_space_free(volume),
		.reserved_blocks = cow_reservation_left(volume, COW_FOR_CHANGE),
		.system_blocks = cow_counts_system(store->counts) + store->log.blocks,
		.reclaim_entries = store->reclaim_count,
		.files = volume->root->totals.files + volume->root->link_files,
		.directories = volume->root->totals.dirs,
		.cache_bytes = store->clean_nodes * COW_BLOCK,
		.dirty_bytes = store->dirty_pages * COW_BLOCK,
	};
	memcpy(info->uuid, store->super.uuid, sizeof(info->uuid));
}

static bool tell_quickly(struct cow_volume *volume, struct cow_info *info)
{
	bool quick;

	pthread_mutex_lock(&volume->store->lock);
	quick = cow_space_is_settled(volume);
	if (quick && info != NULL)
		tell(volume, info);
	pthread_mutex_unlock(&volume->store->lock);
	return quick;
}

int cow_info(struct cow_volume *volume, struct cow_info *info)
{
	struct cow_op op;

	if (tell_quickly(volume, info))
		return 0;
	(void)cow_space_settle(volume);
	cow_op_begin_read(&op, volume);
	cow_space_finish(&op);
	tell(volume, info);
	cow_op_end(&op);
	return 0;
}

bool cow_info_is_quick(struct cow_volume *volume)
{
	return tell_quickly(volume, NULL);
}
