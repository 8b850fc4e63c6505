"""HDF5 files of robomimic, LIBERO, Isaac Lab and ALOHA."""
