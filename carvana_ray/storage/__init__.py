"""Files on local disk and in S3 behind one API."""

from carvana_ray.storage.base import FileInfo
from carvana_ray.storage.router import (
    READ_AHEAD,
    atomic_writer,
    exists,
    free_space,
    is_remote,
    join,
    list_all,
    list_dirs,
    list_files,
    name,
    open_read,
    parent,
    read,
    read_many,
    remove,
    remove_dir,
    require_writable,
    resolve,
    state,
    write_atomic,
)
