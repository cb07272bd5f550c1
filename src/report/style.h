/* style.h: how a page looks, and what it can do more where scripts run. */
#ifndef EXPERTMESH_REPORT_STYLE_H
#define EXPERTMESH_REPORT_STYLE_H

#include "page.h"

/* What stands in the page's head. */
void em_style_put(em_page *page);

/* What stands at its end. */
void em_script_put(em_page *page);

#endif
