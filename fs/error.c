/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <string.h>

#include "cow.h"

static const struct {
	int code, number;
	const char *text;
} errors[] = {
	{COW_ERR_NOT_VOLUME, EINVAL, "not a cowlinks volume"},
	{COW_ERR_NEWER, EOPNOTSUPP, "made by a newer version of cowlinks, with features that this one does not know"},
	{COW_ERR_BUSY, EBUSY, "in use by another program"},
	{COW_ERR_DAMAGED, EIO, "the volume is damaged"},
	{COW_ERR_SHORT, EIO, "the image is shorter than the volume in it: it has been truncated"},
	{COW_ERR_EXISTS, EEXIST, "there is data already"},
	{COW_ERR_SIZE, EINVAL, "a volume has 16 MiB to 512 TiB"},
};

int cow_error_errno(int error)
{
	for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++)
		if (errors[i].code == error)
			return errors[i].number;
	return error < 0 ? -error : error;
}

const char *cow_error_text(int error)
{
	for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++)
		if (errors[i].code == error)
			return errors[i].text;
	const char *text = strerrordesc_np(error < 0 ? -error : error);
	return text != NULL ? text : "unknown error";
}
