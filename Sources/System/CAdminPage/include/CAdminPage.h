#ifndef MUSTER_CADMINPAGE_H
#define MUSTER_CADMINPAGE_H

#include <stddef.h>

/// The bytes of a file of the admin port's page, by its name in the folder `page`, and their count. They live as long as the process, and
/// no zero byte ends them. NULL when there is no such file.
const unsigned char *admin_page_file(const char *name, size_t *count);

#endif
