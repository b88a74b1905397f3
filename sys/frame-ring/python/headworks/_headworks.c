/* The Python side of headworks.h: a Stream that is asked for its next frame, and the Frame it gives. What it all means, and the words
 * for people, are in __init__.py. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#define HEADWORKS_IMPLEMENTATION
#include "headworks.h"

/* Signals are looked for this often. */
#define SLICE_MS 100

static PyObject *error_class;

typedef struct {
    PyObject_HEAD
    headworks_stream *stream; /* NULL when it is closed */
    int verify;
    uint64_t looks;           /* a borrowed frame is gone with the next one */
    Py_ssize_t exports;       /* views of the borrowed frame that are still held */
    int busy;                 /* a thread waits in it, without the interpreter's lock */
} Stream;

typedef struct {
    PyObject_HEAD
    headworks_frame frame;
    PyObject *owner;          /* the bytes, or the Stream in whose ring they lie */
    uint64_t look;
    PyObject *track, *codec, *side_data, *before;
    unsigned int clock_rate, kind;
} Frame;

static PyTypeObject stream_type, frame_type;

/* Sets the exception for a call that failed; NULL. */
static PyObject *fail(headworks_status status, const char *path) {
    PyObject *value;
    if (status == HEADWORKS_ERROR_MEMORY)
        return PyErr_NoMemory();
    if (status == HEADWORKS_ERROR_SYSTEM)
        return PyErr_SetFromErrnoWithFilename(PyExc_OSError, path);
    value = Py_BuildValue("(is)", (int)status, headworks_status_text(status));
    if (value)
        PyErr_SetObject(error_class, value);
    Py_XDECREF(value);
    return NULL;
}

/* Texts of stream.capnp and of the codec come from the network. */
static PyObject *text(const char *bytes) {
    return PyUnicode_DecodeUTF8(bytes, (Py_ssize_t)strlen(bytes), "replace");
}

/* Frames. -------------------------------------------------------------------------------------------------------------------------- */

static int is_borrowed(const Frame *self) {
    return Py_IS_TYPE(self->owner, &stream_type);
}

/* Whether the bytes can be looked at, not whether they are still that frame's. */
static int is_there(const Frame *self) {
    const Stream *stream = (const Stream *)self->owner;
    return !is_borrowed(self) || (stream->stream && !stream->busy && stream->looks == self->look);
}

static void frame_dealloc(Frame *self) {
    Py_XDECREF(self->owner);
    Py_XDECREF(self->track);
    Py_XDECREF(self->codec);
    Py_XDECREF(self->side_data);
    Py_XDECREF(self->before);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static int frame_getbuffer(Frame *self, Py_buffer *view, int flags) {
    if (!is_there(self)) {
        PyErr_SetString(PyExc_BufferError, "a borrowed frame is gone with the next call for its stream");
        view->obj = NULL;
        return -1;
    }
    if (PyBuffer_FillInfo(view, (PyObject *)self, (void *)(uintptr_t)self->frame.data, (Py_ssize_t)self->frame.size, 1, flags) != 0)
        return -1;
    if (is_borrowed(self))
        ((Stream *)self->owner)->exports++;
    return 0;
}

static void frame_releasebuffer(Frame *self, Py_buffer *view) {
    (void)view;
    if (is_borrowed(self))
        ((Stream *)self->owner)->exports--;
}

static Py_ssize_t frame_length(Frame *self) {
    return (Py_ssize_t)self->frame.size;
}

static PyObject *frame_data(Frame *self, void *unused) {
    (void)unused;
    return PyMemoryView_FromObject((PyObject *)self);
}

static PyObject *frame_intact(Frame *self, void *unused) {
    (void)unused;
    return PyBool_FromLong(is_there(self) && headworks_frame_is_intact(&self->frame));
}

static PyObject *frame_margin(Frame *self, void *unused) {
    (void)unused;
    if (!is_borrowed(self))
        Py_RETURN_NONE;
    return PyLong_FromUnsignedLongLong(is_there(self) ? headworks_frame_margin(&self->frame) : 0);
}

static PyObject *optional(int there, PyObject *(*make)(long long), long long value) {
    if (!there)
        Py_RETURN_NONE;
    return make(value);
}

static PyObject *frame_pts(Frame *self, void *unused) {
    (void)unused;
    return optional(self->frame.has_pts, PyLong_FromLongLong, self->frame.pts);
}

static PyObject *frame_dts(Frame *self, void *unused) {
    (void)unused;
    return optional(self->frame.has_dts, PyLong_FromLongLong, self->frame.dts);
}

static PyObject *frame_crc32c(Frame *self, void *unused) {
    (void)unused;
    return optional(self->frame.has_crc, PyLong_FromLongLong, self->frame.crc32c);
}

static PyObject *frame_key_seq(Frame *self, void *unused) {
    (void)unused;
    return optional(self->frame.key_seq != HEADWORKS_NONE, PyLong_FromLongLong, (long long)self->frame.key_seq);
}

static PyObject *frame_timecode(Frame *self, void *unused) {
    const headworks_frame *f = &self->frame;
    (void)unused;
    if (!f->has_timecode)
        Py_RETURN_NONE;
    return PyUnicode_FromFormat("%02u:%02u:%02u%c%02u", (unsigned)f->timecode_hours, (unsigned)f->timecode_minutes,
                                (unsigned)f->timecode_seconds, f->timecode_drop_frame ? ';' : ':', (unsigned)f->timecode_frames);
}

static PyObject *frame_repr(Frame *self) {
    return PyUnicode_FromFormat("<Frame %U %llu: %zu bytes%s%s>", self->track, (unsigned long long)self->frame.seq, self->frame.size,
                                self->frame.key ? ", key" : "", self->frame.damaged ? ", damaged" : "");
}

#define FIELD(name, type) {#name, type, (Py_ssize_t)offsetof(Frame, frame.name), READONLY, NULL}
static PyMemberDef frame_members[] = {
    {"track", T_OBJECT, (Py_ssize_t)offsetof(Frame, track), READONLY, NULL},
    {"codec", T_OBJECT, (Py_ssize_t)offsetof(Frame, codec), READONLY, NULL},
    {"kind", T_UINT, (Py_ssize_t)offsetof(Frame, kind), READONLY, NULL},
    {"clock_rate", T_UINT, (Py_ssize_t)offsetof(Frame, clock_rate), READONLY, NULL},
    {"side_data", T_OBJECT, (Py_ssize_t)offsetof(Frame, side_data), READONLY, NULL},
    {"before", T_OBJECT, (Py_ssize_t)offsetof(Frame, before), 0, NULL},
    FIELD(seq, T_ULONGLONG),
    FIELD(stream_seq, T_ULONGLONG),
    FIELD(timeline_ns, T_LONGLONG),
    FIELD(origin, T_ULONGLONG),
    FIELD(origin_kind, T_USHORT),
    FIELD(first_arrival_ns, T_ULONGLONG),
    FIELD(last_arrival_ns, T_ULONGLONG),
    FIELD(due_ns, T_ULONGLONG),
    FIELD(commit_ns, T_ULONGLONG),
    FIELD(wall_clock_ns, T_LONGLONG),
    FIELD(wall_clock, T_USHORT),
    FIELD(wall_clock_quality, T_USHORT),
    FIELD(duration, T_UINT),
    FIELD(config_generation, T_UINT),
    FIELD(configuration_changed, T_BOOL),
    FIELD(segment, T_UINT),
    FIELD(packets_lost, T_UINT),
    FIELD(packets_recovered, T_UINT),
    FIELD(path_mask, T_UINT),
    FIELD(damaged, T_BOOL),
    FIELD(damage_reasons, T_UINT),
    FIELD(discontinuity, T_USHORT),
    FIELD(picture_type, T_USHORT),
    FIELD(picture_structure, T_USHORT),
    FIELD(key, T_BOOL),
    FIELD(random_access, T_USHORT),
    FIELD(recovery_count, T_USHORT),
    FIELD(temporal_id, T_UBYTE),
    FIELD(pts_interpolated, T_BOOL),
    FIELD(dts_derived, T_BOOL),
    {NULL, 0, 0, 0, NULL},
};
#undef FIELD

static PyGetSetDef frame_getset[] = {
    {"data", (getter)frame_data, NULL, NULL, NULL},
    {"intact", (getter)frame_intact, NULL, NULL, NULL},
    {"margin", (getter)frame_margin, NULL, NULL, NULL},
    {"pts", (getter)frame_pts, NULL, NULL, NULL},
    {"dts", (getter)frame_dts, NULL, NULL, NULL},
    {"crc32c", (getter)frame_crc32c, NULL, NULL, NULL},
    {"key_seq", (getter)frame_key_seq, NULL, NULL, NULL},
    {"timecode", (getter)frame_timecode, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyBufferProcs frame_buffer = {(getbufferproc)frame_getbuffer, (releasebufferproc)frame_releasebuffer};
static PySequenceMethods frame_sequence = {.sq_length = (lenfunc)frame_length};

static PyTypeObject frame_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "headworks.Frame",
    .tp_doc = "A coded frame; memoryview(frame) and numpy.frombuffer(frame, 'u1') see its bytes without a copy.",
    .tp_basicsize = sizeof(Frame),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_dealloc = (destructor)frame_dealloc,
    .tp_repr = (reprfunc)frame_repr,
    .tp_as_buffer = &frame_buffer,
    .tp_as_sequence = &frame_sequence,
    .tp_members = frame_members,
    .tp_getset = frame_getset,
};

/* Streams. ------------------------------------------------------------------------------------------------------------------------- */

static PyObject *stream_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    static char *names[] = {"directory", "start", "sequence", "track", "verify", "broker", NULL};
    PyObject *directory, *broker;
    const char *track, *place;
    int start, verify;
    unsigned long long sequence;
    headworks_options options;
    headworks_status status;
    Stream *self;
    memset(&options, 0, sizeof options);
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O&iKzpO", names, PyUnicode_FSConverter, &directory, &start, &sequence, &track,
                                     &verify, &broker))
        return NULL;
    if (broker == Py_None)
        broker = NULL;
    else if (!PyUnicode_FSConverter(broker, &broker)) {
        Py_DECREF(directory);
        return NULL;
    }
    self = (Stream *)type->tp_alloc(type, 0);
    if (!self) {
        Py_DECREF(directory);
        Py_XDECREF(broker);
        return NULL;
    }
    options.start = (headworks_start)start;
    options.sequence = sequence;
    options.track = track;
    self->verify = verify;
    place = PyBytes_AS_STRING(directory);
    if (broker) {
        const char *name = place;
        place = PyBytes_AS_STRING(broker);
        Py_BEGIN_ALLOW_THREADS
        status = headworks_stream_open_through(&self->stream, place, name, &options);
        Py_END_ALLOW_THREADS
    } else {
        status = headworks_stream_open_directory(&self->stream, place, &options);
    }
    if (status != HEADWORKS_OK) {
        fail(status, place);
        Py_CLEAR(self);
    }
    Py_DECREF(directory);
    Py_XDECREF(broker);
    return (PyObject *)self;
}

static void stream_dealloc(Stream *self) {
    headworks_stream_close(self->stream);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static int is_open(const Stream *self) {
    if (!self->stream)
        PyErr_SetString(PyExc_ValueError, "the stream is closed");
    else if (self->busy)
        PyErr_SetString(PyExc_RuntimeError, "the stream is in use");
    return self->stream && !self->busy;
}

/* What is about to happen may unmap the ring of a borrowed frame. */
static int is_movable(const Stream *self) {
    if (!is_open(self))
        return 0;
    if (self->exports > 0)
        PyErr_SetString(PyExc_BufferError, "a view of a borrowed frame is still held: release it first");
    return self->exports == 0;
}

static PyObject *stream_close(Stream *self, PyObject *unused) {
    (void)unused;
    if (self->stream && !is_movable(self))
        return NULL;
    headworks_stream_close(self->stream);
    self->stream = NULL;
    Py_RETURN_NONE;
}

static PyObject *event_of(const headworks_next *next) {
    return Py_BuildValue("(iIKK)", (int)next->status, next->track, (unsigned long long)next->count, (unsigned long long)next->resume_at);
}

/* A Frame, with its bytes copied unless it is borrowed; or the event that it came to nothing. */
static PyObject *frame_of(Stream *self, headworks_next *next, int borrow) {
    const headworks_header *header = headworks_ring_header(headworks_stream_track(self->stream, next->track));
    headworks_frame *f = &next->frame;
    Frame *frame = PyObject_New(Frame, &frame_type);
    PyObject *bytes = NULL;
    if (!frame)
        return NULL;
    frame->look = self->looks;
    frame->clock_rate = header->clock_rate;
    frame->kind = header->kind;
    frame->track = text(headworks_stream_track_name(self->stream, next->track));
    frame->codec = text(header->codec);
    frame->before = PyTuple_New(0);
    frame->side_data = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)f->side_data_size);
    frame->owner = borrow ? Py_NewRef((PyObject *)self) : (bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)f->size));
    if (!frame->track || !frame->codec || !frame->before || !frame->side_data || !frame->owner) {
        Py_DECREF(frame);
        return NULL;
    }
    headworks_copy_shared(PyBytes_AS_STRING(frame->side_data), f->side_data, f->side_data_size);
    if (bytes) {
        headworks_status status = HEADWORKS_FRAME;
        char *to = PyBytes_AS_STRING(bytes);
        self->busy = 1;
        Py_BEGIN_ALLOW_THREADS
        if (!headworks_frame_copy(f, 0, to, f->size))
            status = HEADWORKS_LAPPED;
        else if (self->verify && f->has_crc && headworks_crc32c(to, f->size) != f->crc32c)
            status = HEADWORKS_ERROR_CHECKSUM;
        Py_END_ALLOW_THREADS
        self->busy = 0;
        if (status != HEADWORKS_FRAME) {
            Py_DECREF(frame);
            next->status = status;
            next->count = 1;
            next->resume_at = f->seq + 1;
            return event_of(next);
        }
        f->data = (const uint8_t *)to;
        f->ring = NULL;
    }
    frame->frame = *f;
    return (PyObject *)frame;
}

static PyObject *stream_look(Stream *self, PyObject *arguments) {
    double timeout;
    int borrow;
    uint64_t deadline;
    headworks_next next;
    int superseded = 0;
    if (!PyArg_ParseTuple(arguments, "dp", &timeout, &borrow) || !is_movable(self))
        return NULL;
    /* A century is for ever. */
    deadline = timeout < 0 || timeout > 3e9 ? HEADWORKS_FOREVER : headworks_now_ns() + (uint64_t)(timeout * 1e9);
    self->looks++;
    for (;;) {
        uint64_t now = headworks_now_ns(), left = deadline > now ? (deadline - now + 999999) / 1000000 : 0;
        headworks_status status;
        self->busy = 1;
        Py_BEGIN_ALLOW_THREADS
        status = headworks_stream_borrow(self->stream, left < SLICE_MS ? (int)left : SLICE_MS, &next);
        Py_END_ALLOW_THREADS
        self->busy = 0;
        superseded |= status == HEADWORKS_SUPERSEDED;
        if ((status != HEADWORKS_TIMEOUT && status != HEADWORKS_SUPERSEDED) || left == 0)
            break;
        /* A handler of a signal may close the stream. */
        if (PyErr_CheckSignals() != 0 || !is_open(self))
            return NULL;
    }
    /* It is said once, but waited through. */
    if (superseded && next.status == HEADWORKS_TIMEOUT)
        next.status = HEADWORKS_SUPERSEDED;
    return next.status == HEADWORKS_FRAME ? frame_of(self, &next, borrow) : event_of(&next);
}

static PyObject *stream_tracks(Stream *self, PyObject *unused) {
    PyObject *list;
    uint32_t i;
    (void)unused;
    if (!is_open(self))
        return NULL;
    list = PyList_New(0);
    for (i = 0; list && i < headworks_stream_track_count(self->stream); i++) {
        const headworks_ring *ring = headworks_stream_track(self->stream, i);
        const headworks_header *h = headworks_ring_header(ring);
        PyObject *one = Py_BuildValue("(NNIIKII)", text(headworks_stream_track_name(self->stream, i)), text(h->codec), (unsigned)h->kind,
                                      h->clock_rate, (unsigned long long)h->data_capacity, h->frame_size_max,
                                      headworks_ring_configuration_generation(ring));
        if (!one || PyList_Append(list, one) != 0)
            Py_CLEAR(list);
        Py_XDECREF(one);
    }
    return list;
}

static PyObject *stream_configuration(Stream *self, PyObject *arguments) {
    unsigned int track, generation;
    const headworks_ring *ring;
    headworks_status status;
    PyObject *bytes;
    size_t room, length;
    if (!PyArg_ParseTuple(arguments, "II", &track, &generation) || !is_open(self))
        return NULL;
    ring = headworks_stream_track(self->stream, track);
    if (!ring) {
        PyErr_SetString(PyExc_IndexError, "no such track");
        return NULL;
    }
    room = headworks_ring_header(ring)->config_size;
    bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)room);
    if (!bytes)
        return NULL;
    status = headworks_ring_configuration(ring, generation, PyBytes_AS_STRING(bytes), room, &length);
    if (status != HEADWORKS_OK) {
        Py_DECREF(bytes);
        return fail(status, NULL);
    }
    (void)_PyBytes_Resize(&bytes, (Py_ssize_t)length);
    return bytes;
}

static PyObject *stream_state(Stream *self, void *unused) {
    (void)unused;
    return is_open(self) ? PyLong_FromLong((long)headworks_stream_state(self->stream)) : NULL;
}

static PyMethodDef stream_methods[] = {
    {"look", (PyCFunction)stream_look, METH_VARARGS, NULL},
    {"tracks", (PyCFunction)stream_tracks, METH_NOARGS, NULL},
    {"configuration", (PyCFunction)stream_configuration, METH_VARARGS, NULL},
    {"close", (PyCFunction)stream_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef stream_getset[] = {
    {"state", (getter)stream_state, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyTypeObject stream_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "headworks._headworks.Stream",
    .tp_basicsize = sizeof(Stream),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = stream_new,
    .tp_dealloc = (destructor)stream_dealloc,
    .tp_methods = stream_methods,
    .tp_getset = stream_getset,
};

/* Directories. --------------------------------------------------------------------------------------------------------------------- */

static PyObject *directory(PyObject *module, PyObject *arguments) {
    const char *root, *name;
    char path[4096];
    headworks_status status;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "ss", &root, &name))
        return NULL;
    status = headworks_stream_directory(root, name, path, sizeof path);
    return status == HEADWORKS_OK ? PyUnicode_DecodeFSDefault(path) : fail(status, path);
}

static PyObject *streams(PyObject *module, PyObject *argument) {
    const char *root = PyUnicode_AsUTF8(argument);
    char **names;
    size_t count, i;
    headworks_status status;
    PyObject *list;
    (void)module;
    if (!root)
        return NULL;
    status = headworks_stream_names(root, &names, &count);
    if (status != HEADWORKS_OK)
        return fail(status, root);
    list = PyList_New(0);
    for (i = 0; list && i < count; i++) {
        PyObject *name = text(names[i]);
        if (!name || PyList_Append(list, name) != 0)
            Py_CLEAR(list);
        Py_XDECREF(name);
    }
    headworks_names_free(names, count);
    return list;
}

static PyObject *describe(PyObject *module, PyObject *arguments) {
    const char *name;
    headworks_description *d;
    headworks_status status;
    PyObject *broker, *programmes, *tracks, *one;
    size_t i;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "sO", &name, &broker))
        return NULL;
    if (broker == Py_None) {
        status = headworks_description_read(&d, name);
        if (status != HEADWORKS_OK)
            return fail(status, name);
    } else {
        const char *place;
        if (!PyUnicode_FSConverter(broker, &broker))
            return NULL;
        place = PyBytes_AS_STRING(broker);
        Py_BEGIN_ALLOW_THREADS
        status = headworks_description_read_through(&d, place, name);
        Py_END_ALLOW_THREADS
        if (status != HEADWORKS_OK)
            fail(status, place);
        Py_DECREF(broker);
        if (status != HEADWORKS_OK)
            return NULL;
    }
    programmes = PyList_New(0);
    tracks = PyList_New(0);
    for (i = 0; programmes && i < d->programme_count; i++) {
        const headworks_programme *p = &d->programmes[i];
        one = Py_BuildValue("(IHNN)", p->number, p->pcr_pid, text(p->name), text(p->provider));
        if (!one || PyList_Append(programmes, one) != 0)
            Py_CLEAR(programmes);
        Py_XDECREF(one);
    }
    for (i = 0; tracks && i < d->track_count; i++) {
        const headworks_track_description *t = &d->tracks[i];
        one = Py_BuildValue("(NIINIINiIIIIIHN)", text(t->name), t->programme, (unsigned)t->kind, text(t->codec), t->source_id,
                            t->clock_rate, text(t->language), t->component_tag, t->width, t->height, t->frame_rate_numerator,
                            t->frame_rate_denominator, t->sample_rate, t->channels, PyBool_FromLong(t->ended));
        if (!one || PyList_Append(tracks, one) != 0)
            Py_CLEAR(tracks);
        Py_XDECREF(one);
    }
    one = NULL;
    if (programmes && tracks)
        one = Py_BuildValue("(NILOO)", text(d->name), d->generation, (long long)d->created_utc_ns, programmes, tracks);
    Py_XDECREF(programmes);
    Py_XDECREF(tracks);
    headworks_description_free(d);
    return one;
}

static PyObject *status_text(PyObject *module, PyObject *argument) {
    long status = PyLong_AsLong(argument);
    (void)module;
    if (status == -1 && PyErr_Occurred())
        return NULL;
    return PyUnicode_FromString(headworks_status_text((headworks_status)status));
}

static PyMethodDef functions[] = {
    {"directory", directory, METH_VARARGS, NULL},
    {"streams", streams, METH_O, NULL},
    {"describe", describe, METH_VARARGS, NULL},
    {"status_text", status_text, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module_of = {PyModuleDef_HEAD_INIT, "_headworks", NULL, -1, functions, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__headworks(void);

PyMODINIT_FUNC PyInit__headworks(void) {
    PyObject *module = PyModule_Create(&module_of);
    error_class = PyErr_NewExceptionWithDoc("headworks.Error", "Why a ring or stream cannot be read: a number of Status and its text.",
                                            NULL, NULL);
    if (!module || !error_class || PyType_Ready(&frame_type) != 0 || PyType_Ready(&stream_type) != 0 ||
        PyModule_AddObjectRef(module, "Error", error_class) != 0 ||
        PyModule_AddObjectRef(module, "Frame", (PyObject *)&frame_type) != 0 ||
        PyModule_AddObjectRef(module, "Stream", (PyObject *)&stream_type) != 0 ||
        PyModule_AddStringConstant(module, "ROOT", HEADWORKS_ROOT) != 0) {
        Py_XDECREF(module);
        return NULL;
    }
    return module;
}
