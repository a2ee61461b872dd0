"""The only place that imports Ray: each stage reads, maps, maps and writes."""
