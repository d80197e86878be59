"""Parts of a page: sections, tables, figures, numbers; written as HTML, Markdown or JSON."""
