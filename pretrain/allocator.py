"""How the C library treats memory that is freed."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # from glibc's malloc.h
_NEVER = -1


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory for later instead of returning it to the system.

    A training step on a CPU allocates gigabytes of feature maps and frees them. By default each of them is mapped anew
    from the system, which clears it page by page: up to a third of the step's processor time. Numbers do not change,
    but glibc reuses aligned memory with gaps, so more of it is held.

    Returns:
        Whether the C library offers this, as glibc does; elsewhere nothing is done.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))
