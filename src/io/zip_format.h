/* zip_format.h - the records of a zip archive as bytes, for its reader and its writer (PKWARE's APPNOTE 4.3). */
#ifndef MALA_ZIP_FORMAT_H
#define MALA_ZIP_FORMAT_H

#define ZIP_LOCAL 0x04034b50u
#define ZIP_DESCRIPTOR 0x08074b50u
#define ZIP_CENTRAL 0x02014b50u
#define ZIP_END 0x06054b50u
#define ZIP_END64 0x06064b50u
#define ZIP_LOCATOR 0x07064b50u

#define ZIP_LOCAL_BYTES ((size_t)30) /* then name, extra fields, data */
#define ZIP_CENTRAL_BYTES ((size_t)46)
#define ZIP_END_BYTES ((size_t)22)
#define ZIP_END64_BYTES ((size_t)56)
#define ZIP_LOCATOR_BYTES ((size_t)20)

#define ZIP_FLAG_DESCRIBED 0x0008 /* CRC and sizes follow the data */
#define ZIP_FLAG_UTF8 0x0800
#define ZIP_EXTRA_64 1 /* an extra field with what does not fit into 32 bits */
#define ZIP_EXTRA_PADDING 0x4246 /* torch's: one byte over and over */

#endif
