/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "test/lib/crowd.h"

#include <stdio.h>
#include <string.h>

/* False: that would be too long for an operation. */
static bool join(char to[ORA_PATH], const char *path, const char *name)
{
	return snprintf(to, ORA_PATH, "%s/%s", strcmp(path, "/") == 0 ? "" : path, name) < ORA_PATH;
}

/* What a clone that failed has left is not known: nothing more is to be done then. */
static bool step(struct drive *d, enum op_kind kind, const char *a, const char *b, const char *name)
{
	struct op op = {.kind = (uint8_t)kind, .x = kind == OP_MKDIR ? 0755 : 0644};

	snprintf(op.a, ORA_PATH, "%s", a);
	snprintf(op.b, ORA_PATH, "%s", b);
	snprintf(op.name, ORA_NAME, "%s", name);
	return d->unsure || drive_step(d, &op);
}

static bool make_tree(struct drive *d, const char *path, const char *name)
{
	char top[ORA_PATH], inner[ORA_PATH];

	if (!join(top, path, name) || !join(inner, top, "s"))
		return true;
	return step(d, OP_MKDIR, path, "", name) && step(d, OP_MKDIR, top, "", "s") &&
	       step(d, OP_CREATE, inner, "", "f");
}

/* Entry `name` of this kind; `odd`: there is one before it, which may be linked or cloned. */
static bool make_entry(struct drive *d, enum crowd kind, const char *path, const char *name, const char *before,
		       bool odd)
{
	char from[ORA_PATH];

	if (!join(from, path, before))
		return true;
	switch (kind) {
	case CROWD_TREES:
		return make_tree(d, path, name);
	case CROWD_LINKS:
		return odd ? step(d, OP_LINK, from, path, name) : step(d, OP_CREATE, path, "", name);
	case CROWD_CLONES:
		return odd ? step(d, OP_CLONE, from, path, name) : make_tree(d, path, name);
	default:
		return step(d, OP_CREATE, path, "", name);
	}
}

bool crowd_make(struct drive *d, const struct op *op)
{
	char path[ORA_PATH], name[ORA_NAME], before[ORA_NAME] = "";
	bool ok = step(d, OP_MKDIR, op->a, "", op->name);

	for (unsigned i = 0; ok && join(path, op->a, op->name) && i < op->x; i++) {
		snprintf(name, sizeof(name), "%c%u", op->flag & CROWD_LONG ? 'L' : 'n', i % 100000);
		ok = make_entry(d, op->flag % CROWD_KINDS, path, name, before, i % 2 != 0);
		memcpy(before, name, sizeof(name));
	}
	return ok;
}

/* What cannot be removed stays, and is passed over. */
bool crowd_clear(struct drive *d, const struct op *op)
{
	struct ora_trail t;
	const struct ora_node *dir;
	char path[ORA_PATH];
	unsigned kept = 0, kids;
	bool ok = true;

	ora_walk(&d->ora, op->a, &t);
	dir = t.count > 0 ? t.node[t.count - 1] : NULL;
	while (ok && dir != NULL && kept < dir->kid_count && join(path, op->a, dir->kids[kept].name)) {
		kids = dir->kid_count;
		ok = step(d, OP_REMOVE, path, "", "");
		kept += dir->kid_count == kids;
	}
	return ok;
}
