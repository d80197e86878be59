"""Parts of a page: sections, tables, figures, numbers; written as HTML, Markdown, JSON, or PNG."""
