/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef COWFS_SLICE_H
#define COWFS_SLICE_H

/*
 * For the calling thread.  Who serves requests needs the processor often and shortly, and somebody waits for it each
 * time.  Since Linux 6.12 a thread can say so: a short slice lets it run sooner among busy programs, and gets it no
 * larger share.  Elsewhere it changes nothing.
 */
void cowfs_slice_shorten(void);

#endif
