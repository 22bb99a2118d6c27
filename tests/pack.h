/* pack.h - the data packs that tests may use: archives in the directory MALA_DATA, none of which is in the repository.
 */
#ifndef MALA_TEST_PACK_H
#define MALA_TEST_PACK_H

/* Unpacks MALA_DATA/NAME.tar.gz; the folder NAME, malloc'd, for pack_close. NULL, with a line saying why, when there is
 * no such pack: the caller skips. */
char *pack_open(const char *name);
void pack_close(char *folder);

#endif
