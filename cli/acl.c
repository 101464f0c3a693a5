// SPDX-License-Identifier: GPL-2.0-or-later
#include "cli/acl.h"

#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "cli/tree.h"

#define HEADER sizeof(struct posix_acl_xattr_header)
#define ENTRY sizeof(struct posix_acl_xattr_entry)
#define REQUIRED (ACL_USER_OBJ | ACL_GROUP_OBJ | ACL_OTHER)
#define NAMED (ACL_USER | ACL_GROUP)

void cow_acl_add(struct cow_acl *acl, unsigned tag, unsigned rights)
{
	unsigned denied = 7 & ~rights;

	acl->seen |= tag;
	acl->bad |= rights > 7;
	switch (tag) {
	case ACL_USER_OBJ: break; /* the mode has it */
	case ACL_USER: acl->users |= denied; break;
	case ACL_GROUP_OBJ: acl->group |= denied; break;
	case ACL_GROUP: acl->groups |= denied; break;
	case ACL_MASK: acl->mask |= denied; break;
	case ACL_OTHER: acl->other |= denied; break;
	default: acl->bad = true;
	}
}

void cow_acl_read(struct cow_acl *acl, const void *value, size_t size)
{
	const uint8_t *p = value;

	if (size < HEADER || (size - HEADER) % ENTRY != 0 || get32(p) != POSIX_ACL_XATTR_VERSION) {
		acl->bad = true;
		return;
	}
	for (size_t at = HEADER; at < size; at += ENTRY)
		cow_acl_add(acl, get16(p + at), get16(p + at + 2));
}

bool cow_acl_extended(const struct cow_acl *acl)
{
	return acl->bad || (acl->seen & ~(unsigned)REQUIRED) != 0;
}

uint32_t cow_acl_narrow(const struct cow_acl *acl, uint32_t mode)
{
	unsigned users = acl->seen & ACL_USER ? acl->users | acl->mask : 0;
	unsigned groups = acl->seen & ACL_GROUP ? acl->groups | acl->mask : 0;
	unsigned group = acl->group | acl->mask | users, other = acl->other | users | groups;

	if (acl->seen == 0 && !acl->bad)
		return mode;
	if (acl->bad || (acl->seen & REQUIRED) != REQUIRED || ((acl->seen & NAMED) && !(acl->seen & ACL_MASK)))
		return mode & ~(uint32_t)077;
	return mode & ~(uint32_t)(group << 3 | other);
}

/* XFS shows root its lists a second time, as it stores them. One that was kept would be a list again on another XFS. */
static bool is_xfs_list(const char *name)
{
	return strcmp(name, "trusted.SGI_ACL_FILE") == 0 || strcmp(name, "trusted.SGI_ACL_DEFAULT") == 0;
}

static void drop(struct cow_tree_item *item, size_t i)
{
	free(item->xattrs[i].name);
	free(item->xattrs[i].value);
	item->xattrs[i] = item->xattrs[--item->xattr_count];
}

void cow_acl_item(struct cow_tree_item *item)
{
	struct cow_acl acl = {0};
	bool stored = false;

	for (size_t i = 0; i < item->xattr_count;) {
		const struct cow_tree_xattr *xattr = &item->xattrs[i];

		item->acl |= strcmp(xattr->name, COW_ACL_DEFAULT) == 0;
		if (strcmp(xattr->name, COW_ACL_ACCESS) == 0)
			cow_acl_read(&acl, xattr->value, xattr->size);
		if (!is_xfs_list(xattr->name)) {
			i++;
			continue;
		}
		stored |= strcmp(xattr->name, "trusted.SGI_ACL_FILE") == 0;
		drop(item, i);
	}
	acl.bad |= stored && acl.seen == 0; /* the usual form comes with it */
	item->acl |= cow_acl_extended(&acl);
	item->mode = cow_acl_narrow(&acl, item->mode);
}
