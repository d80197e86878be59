"""Reports of runs, sweeps and studies: one page of sections, written as HTML, Markdown or JSON."""
