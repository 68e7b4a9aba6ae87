//! CRI RuntimeService and ImageService.
