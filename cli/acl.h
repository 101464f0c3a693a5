/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a POSIX access control list leaves of a mode, where the list itself cannot be kept.
 *
 * The group bits of a file with a list show the list's mask, and a list can deny to one user what it gives to all
 * others. A mode alone must then be narrower: whoever falls into a class of the mode gets what everybody whom the list
 * may have meant in that class had. A named user may be in the owning group, so what he lacks the group lacks too.
 */
#ifndef COW_CLI_ACL_H
#define COW_CLI_ACL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cow_tree_item;

#define COW_ACL_ACCESS "system.posix_acl_access"
#define COW_ACL_DEFAULT "system.posix_acl_default"

/* All zero: no list. */
struct cow_acl {
	unsigned seen; /* tags of <linux/posix_acl.h>, which are bits */
	unsigned group, other, mask, users, groups; /* taken away from each: bits 1, 2 and 4 */
	bool bad; /* not understood: nobody but the owner gets anything */
};
/* One entry: a tag of <linux/posix_acl.h> and its rights. */
void cow_acl_add(struct cow_acl *acl, unsigned tag, unsigned rights);
/* All entries of the extended attribute COW_ACL_ACCESS. */
void cow_acl_read(struct cow_acl *acl, const void *value, size_t size);
/* Whether it says more than the mode does. */
bool cow_acl_extended(const struct cow_acl *acl);
uint32_t cow_acl_narrow(const struct cow_acl *acl, uint32_t mode);

/* Narrows the mode of an item that has a list among its extended attributes, each of which it then has once. */
void cow_acl_item(struct cow_tree_item *item);

#endif
