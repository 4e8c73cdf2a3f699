//! Names to addresses without glibc's NSS, which a static binary does not have: the host's `/etc/hosts`, then the name
//! servers of the host's `resolv.conf`, both read again when they changed.
