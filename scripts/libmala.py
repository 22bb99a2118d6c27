"""libmala (mala.h, `make lib`) for the scripts that compare it with other programs; itself no part of mala."""
import ctypes
import os

import numpy


class _Error(ctypes.Structure):
    _fields_ = [('code', ctypes.c_int), ('text', ctypes.c_char * 1024)]


class _Info(ctypes.Structure):
    _fields_ = [('classes', ctypes.c_int), ('height', ctypes.c_int), ('width', ctypes.c_int),
                ('parameters', ctypes.c_int64), ('macs', ctypes.c_double)]


class _Options(ctypes.Structure):
    _fields_ = [('device', ctypes.c_char_p), ('threads', ctypes.c_int), ('batch', ctypes.c_int),
                ('tensors', ctypes.c_bool)]


class _Image(ctypes.Structure):
    _fields_ = [('width', ctypes.c_int), ('height', ctypes.c_int), ('pixels', ctypes.c_void_p)]


class Model:
    """weights on the CPU: logits [n, classes] of tensors, float32 [n, 3, height, width], or of pictures' paths"""

    def __init__(self, library, weights, settings=()):
        self.lib = lib = ctypes.CDLL(os.path.abspath(library))
        lib.mala_model_open.restype = lib.mala_runner_new.restype = ctypes.c_void_p
        lib.mala_model_info.restype = _Info
        for name in ('mala_run_tensors', 'mala_run_images', 'mala_image_load'):
            getattr(lib, name).restype = ctypes.c_bool
        self.error = _Error()
        texts = (ctypes.c_char_p * len(settings))(*(s.encode() for s in settings))
        self.model = ctypes.c_void_p(self._must(
            lib.mala_model_open(weights.encode(), texts, len(settings), ctypes.byref(self.error))))
        self.classes = lib.mala_model_info(self.model).classes

    def _must(self, result):
        if not result:
            raise RuntimeError(self.error.text.decode())
        return result

    def _run(self, function, data, count, tensors):
        options = _Options(b'cpu', 0, 1, tensors)
        runner = ctypes.c_void_p(self._must(
            self.lib.mala_runner_new(self.model, ctypes.byref(options), ctypes.byref(self.error))))
        logits = numpy.empty((count, self.classes), dtype=numpy.float32)
        self._must(function(runner, ctypes.c_void_p(logits.ctypes.data), None, data, count, ctypes.byref(self.error)))
        self.lib.mala_runner_free(runner)
        return logits

    def tensors(self, images):
        images = numpy.ascontiguousarray(images, dtype=numpy.float32)
        return self._run(self.lib.mala_run_tensors, ctypes.c_void_p(images.ctypes.data), len(images), True)

    def pictures(self, paths):
        images = (_Image * len(paths))()
        for image, path in zip(images, paths):
            self._must(self.lib.mala_image_load(ctypes.byref(image), path.encode(), ctypes.byref(self.error)))
        logits = self._run(self.lib.mala_run_images, images, len(paths), False)
        for image in images:
            self.lib.mala_image_free(ctypes.byref(image))
        return logits

    def close(self):
        self.lib.mala_model_close(self.model)
