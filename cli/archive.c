// SPDX-License-Identifier: GPL-2.0-or-later
#include "cli/archive.h"

#include <dlfcn.h>
#include <string.h>

#define LIBRARY "libarchive.so.13" /* the name that its interface has had since version 3.0 */

int cow_archive_load(const struct cow_cli *cli, struct cow_archive_calls *calls)
{
	static const struct {
		const char *name;
		size_t at;
	} wanted[] = {
#define X(name) {#name, offsetof(struct cow_archive_calls, name)},
		COW_ARCHIVE_CALLS(X)
#undef X
	};

	calls->library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
	if (calls->library == NULL)
		return cow_say(cli, "tar archives need " LIBRARY " (Debian: package libarchive13): %s", dlerror());
	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		void *call = dlsym(calls->library, wanted[i].name);

		if (call == NULL) {
			cow_archive_unload(calls);
			return cow_say(cli, LIBRARY " is too old: it has no %s", wanted[i].name);
		}
		memcpy((char *)calls + wanted[i].at, &call, sizeof(call));
	}
	return 0;
}

void cow_archive_unload(struct cow_archive_calls *calls)
{
	if (calls->library != NULL)
		dlclose(calls->library);
	calls->library = NULL;
}
