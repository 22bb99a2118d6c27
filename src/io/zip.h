/* zip.h - archives whose entries are stored as they are: what torch.save writes, and nothing that must be unpacked.
 *
 * The reader takes files from strangers. The central directory, the local headers and the data descriptors have to
 * agree, and together they have to tile the file from its first byte to its last: nothing hides between entries,
 * nothing overlaps, nothing precedes or follows. Refused: compression, encryption, comments, several disks, duplicate
 * names, names that would lead out of a folder. Names are data all the same: nothing is ever extracted to one. */
#ifndef MALA_ZIP_H
#define MALA_ZIP_H

#include "base/base.h"
#include "base/file.h"

#define ZIP_MAX_ENTRIES 200000
#define ZIP_MAX_NAME 512 /* bytes */
#define ZIP_MAX_DIRECTORY ((size_t)128 << 20)
#define ZIP_ALIGNMENT 64 /* of the data of written entries, from the file's first byte */

typedef struct {
    uint32_t table[8][256];
} ZipCrc;

typedef struct {
    const char *name;
    size_t data, bytes; /* of the file: where they begin, how many */
    uint32_t crc;
    bool described;    /* a data descriptor follows the data */
    size_t begin, end; /* from the local header to the next one, bytes of the file */
} ZipEntry;

typedef struct {
    const FileReader *file;
    ZipEntry *entries; /* in the order of the file */
    size_t count;
    const ZipEntry **by_name;
    char *names;
    ZipCrc crc;
} Zip;

/* Reads the directory of an archive, which must stay open. Followed by zip_close, also when it fails.
 * False: EXIT_INPUT with the byte at fault, EXIT_IO, EXIT_MEMORY. Data are not read yet. */
bool zip_open(Zip *out, const FileReader *file, Err *err);
void zip_close(Zip *z);
const ZipEntry *zip_find(const Zip *z, const char *name);
/* Do the data have the CRC that the archive states? False: EXIT_INPUT, EXIT_IO. */
bool zip_check(const Zip *z, const ZipEntry *entry, Err *err);
/* The same for out[entry->bytes], which it fills with them. */
bool zip_read(const Zip *z, const ZipEntry *entry, void *out, Err *err);

typedef struct {
    FileWriter file;
    ZipEntry *entries;
    size_t count, capacity, at;
    size_t limit; /* sizes and places from here on take 64 bits: what 32 cannot say; a test may lower it */
    ZipCrc crc;
} ZipWriter;

/* Writes an archive atomically (FileWriter): open, any number of adds, then finish or discard. False: EXIT_IO. */
bool zip_writer_open(ZipWriter *w, const char *path, Err *err);
/* name is kept by reference; names must differ. */
bool zip_writer_add(ZipWriter *w, const char *name, const void *data, size_t bytes, Err *err);
bool zip_writer_finish(ZipWriter *w, Err *err); /* closes w, also on failure */
void zip_writer_discard(ZipWriter *w);

/* CRC-32 of ISO 3309, as zip and PNG have it, of what `before` is the CRC of (nothing: 0) and count bytes more. */
void zip_crc_init(ZipCrc *crc);
uint32_t zip_crc(const ZipCrc *crc, uint32_t before, const void *bytes, size_t count);

#endif
