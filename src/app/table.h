/* table.h - tables of named rows on standard output that keep to the terminal's width. */
#ifndef MALA_TABLE_H
#define MALA_TABLE_H

/* The width of the column of names: the longest one's, or what `rest` columns of figures leave of a terminal's line (80
 * where there is none). */
int table_name_width(int longest, int rest);
/* The name, filled up to the width; one that is longer has a line of its own before the row's. */
void table_name(const char *name, int width);

#endif
