#include "CAdminPage.h"

#include <string.h>

// `#embed` is of C23; clang takes it in every C. The compiler notes each file among what this one depends on, so that a changed file is
// compiled in at the next build.
#pragma clang diagnostic ignored "-Wc23-extensions"

// The page, with {{a file's name}} on a line of its own where that file goes.
static const unsigned char page_html[] = {
#embed "page/page.html"
};

// For light and dark, wide and narrow screens: below 760 px a replica is a card instead of a line.
static const unsigned char page_css[] = {
#embed "page/page.css"
};

// The timelines: a label beside each plot, or above it where the page is narrow. Lines differ in their dashes too, not in colour alone.
static const unsigned char scaling_css[] = {
#embed "page/scaling.css"
};

// Tiles, routes and replicas. Rates come from the latest snapshots of /api/state, 10 seconds of them; when a gateway, a route or a replica
// counts anew, its rates begin anew here. Nodes are kept and only what differs is written, so nothing jumps and the focus stays.
static const unsigned char figures_js[] = {
#embed "page/figures.js"
};

// A table of what the stack runs beside the gateway's replicas: stores, workers and tasks, from /api/replicas. Hidden where there is none.
static const unsigned char units_js[] = {
#embed "page/units.js"
};

// How services that scale by themselves came to their size: replicas, what was wanted and what was measured over the last hour. The figures
// come from /api/scaling, asked as often as the autoscaler decides, within two to five seconds. Hidden where nothing scales.
static const unsigned char scaling_js[] = {
#embed "page/scaling.js"
};

// The list of decisions, the search for one request, and the schedule by which the page asks the server.
static const unsigned char decisions_js[] = {
#embed "page/decisions.js"
};

static const struct {
    const char *name;
    const unsigned char *bytes;
    size_t count;
} files[] = {
    {"page.html", page_html, sizeof page_html},       {"page.css", page_css, sizeof page_css},
    {"scaling.css", scaling_css, sizeof scaling_css}, {"figures.js", figures_js, sizeof figures_js},
    {"units.js", units_js, sizeof units_js},          {"scaling.js", scaling_js, sizeof scaling_js},
    {"decisions.js", decisions_js, sizeof decisions_js},
};

const unsigned char *admin_page_file(const char *name, size_t *count) {
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        if (strcmp(files[i].name, name) == 0) {
            *count = files[i].count;
            return files[i].bytes;
        }
    }
    *count = 0;
    return NULL;
}
