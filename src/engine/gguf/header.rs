//! The bytes of a GGUF header, read once from front to back: counts, metadata, tensors.
//! Every length is checked before anything is reserved for it; nothing behind the header is read.

use super::*;

/// Where in the header something went wrong, as an error names it.
#[derive(Clone, Copy)]
enum Place<'a> {
    Start,
    Entry(u64),
    Value(&'a str),
    Tensor(u64),
    Named(&'a str),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Start => f.write_str("the start of the header"),
            Place::Entry(index) => write!(f, "metadata entry {index}"),
            Place::Value(key) => write!(f, "metadata key '{}'", shown(key)),
            Place::Tensor(index) => write!(f, "tensor {index}"),
            Place::Named(name) => write!(f, "tensor '{}'", shown(name)),
        }
    }
}

/// A header being read: the open file and how far it has been read.
pub(super) struct Header<R> {
    pub(super) reader: R,
    pub(super) at: u64,
    pub(super) file_bytes: u64,
    pub(super) file: String,
}

impl<R: Read> Header<R> {
    /// Reads the whole header and checks that the tensors it describes lie in the file.
    pub(super) fn read(mut self, path: &Path) -> Result<Gguf> {
        let (tensors, entries) = self.counts()?;
        let mut metadata = HashMap::with_capacity(entries as usize);
        for index in 0..entries {
            let place = Place::Entry(index);
            let key = self.name(place, GGUF_KEY_BYTES_MAX)?;
            let code = self.u32(place)?;
            let value = self.value(&key, code)?;
            if metadata.contains_key(&key) {
                return Err(self.damaged(Place::Value(&key), "the key stands in the file twice"));
            }
            metadata.insert(key, value);
        }
        let alignment = self.alignment(&metadata)?;
        let tensors = self.tensors(tensors, alignment)?;
        let path = path.to_owned();
        Ok(Gguf { path, file: self.file, file_bytes: self.file_bytes, metadata, tensors })
    }

    /// Magic, version and the two counts: tensors, metadata entries.
    fn counts(&mut self) -> Result<(u64, u64)> {
        let place = Place::Start;
        let magic = self.array::<4>(place)?;
        if &magic != b"GGUF" {
            let found = shown(&String::from_utf8_lossy(&magic));
            return Err(self.error(format_args!(
                "expected 'GGUF' at byte 0, found '{found}'; this is no GGUF model file"
            )));
        }
        let version = self.u32(place)?;
        if !(2..=3).contains(&version) {
            let found = if (2..=3).contains(&version.swap_bytes()) {
                "a big-endian file".to_owned()
            } else {
                format!("version {version}")
            };
            return Err(self.error(format_args!(
                "expected GGUF version 2 or 3, little endian, found {found}; convert it again"
            )));
        }
        let tensors = self.u64(place)?;
        self.bounded(place, "tensors", tensors, GGUF_TENSORS_MAX)?;
        let entries = self.u64(place)?;
        self.bounded(place, "metadata entries", entries, GGUF_ENTRIES_MAX)?;
        self.ensure(place, entries * ENTRY_BYTES_MIN + tensors * TENSOR_BYTES_MIN)?;
        Ok((tensors, entries))
    }

    fn value(&mut self, key: &str, code: u32) -> Result<Value> {
        let place = Place::Value(key);
        Ok(match code {
            0 => Value::Uint(u8::from_le_bytes(self.array(place)?).into()),
            1 => Value::Int(i8::from_le_bytes(self.array(place)?).into()),
            2 => Value::Uint(u16::from_le_bytes(self.array(place)?).into()),
            3 => Value::Int(i16::from_le_bytes(self.array(place)?).into()),
            4 => Value::Uint(self.u32(place)?.into()),
            5 => Value::Int(i32::from_le_bytes(self.array(place)?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array(place)?).into()),
            7 => Value::Bool(self.boolean(place)?),
            8 => Value::Text(self.text(place, GGUF_STRING_BYTES_MAX)?),
            9 => self.list(key)?,
            10 => Value::Uint(self.u64(place)?),
            11 => Value::Int(i64::from_le_bytes(self.array(place)?)),
            12 => Value::Float(f64::from_le_bytes(self.array(place)?)),
            _ => return Err(self.damaged(place, format_args!("value type {code} is unknown"))),
        })
    }

    /// An array: the type of its elements, their number, the elements.
    fn list(&mut self, key: &str) -> Result<Value> {
        let place = Place::Value(key);
        let code = self.u32(place)?;
        let count = self.u64(place)?;
        self.bounded(place, "array elements", count, GGUF_ARRAY_MAX)?;
        let width = match code {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => return Err(self.damaged(place, "arrays within arrays are not supported")),
            _ => return Err(self.damaged(place, format_args!("element type {code} is unknown"))),
        };
        self.ensure(place, count * width)?;
        Ok(match code {
            0 => Value::Bytes(self.bytes(place, count)?),
            7 => Value::Bytes(self.each(count, |header| Ok(header.boolean(place)?.into()))?),
            8 => Value::Texts(self.each(count, |h| h.text(place, GGUF_STRING_BYTES_MAX))?),
            6 => Value::Floats(self.each(count, |h| Ok(f32::from_le_bytes(h.array(place)?)))?),
            12 => {
                Value::Floats(self.each(count, |h| Ok(f64::from_le_bytes(h.array(place)?) as f32))?)
            }
            _ => Value::Ints(self.each(count, |header| header.integer(place, code))?),
        })
    }

    /// An integer of an array, of any width.
    fn integer(&mut self, place: Place<'_>, code: u32) -> Result<i64> {
        Ok(match code {
            1 => i8::from_le_bytes(self.array(place)?).into(),
            2 => u16::from_le_bytes(self.array(place)?).into(),
            3 => i16::from_le_bytes(self.array(place)?).into(),
            4 => self.u32(place)?.into(),
            5 => i32::from_le_bytes(self.array(place)?).into(),
            11 => i64::from_le_bytes(self.array(place)?),
            _ => {
                let number = self.u64(place)?;
                i64::try_from(number).map_err(|_| {
                    self.damaged(place, format_args!("{number} is too large for an array"))
                })?
            }
        })
    }

    /// `count` elements; the caller has checked that the file has room for them.
    fn each<T>(
        &mut self,
        count: u64,
        mut element: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut list = Vec::with_capacity(count as usize);
        for _ in 0..count {
            list.push(element(self)?);
        }
        Ok(list)
    }

    fn alignment(&self, metadata: &HashMap<String, Value>) -> Result<u64> {
        const KEY: &str = "general.alignment";
        let alignment = match metadata.get(KEY) {
            None => ALIGNMENT_BYTES,
            Some(Value::Uint(bytes)) => *bytes,
            Some(other) => {
                let text = format!("expected an unsigned integer, found {}", other.sort());
                return Err(self.damaged(Place::Value(KEY), text));
            }
        };
        if !alignment.is_power_of_two() || !(8..=GGUF_ALIGNMENT_BYTES_MAX).contains(&alignment) {
            return Err(self.damaged(
                Place::Value(KEY),
                format_args!(
                    "expected a power of two from 8 to {GGUF_ALIGNMENT_BYTES_MAX}, found {alignment}"
                ),
            ));
        }
        Ok(alignment)
    }

    fn tensors(&mut self, count: u64, alignment: u64) -> Result<Vec<TensorInfo>> {
        let mut tensors = Vec::with_capacity(count as usize);
        for index in 0..count {
            tensors.push(self.tensor(index)?);
        }
        let mut names = HashSet::with_capacity(tensors.len());
        for tensor in &tensors {
            if !names.insert(tensor.name.as_str()) {
                let place = Place::Named(&tensor.name);
                return Err(self.damaged(place, "the name stands in the file twice"));
            }
        }
        self.placed(&mut tensors, alignment)?;
        Ok(tensors)
    }

    /// One tensor's description, its offset still relative to the data.
    fn tensor(&mut self, index: u64) -> Result<TensorInfo> {
        let name = self.name(Place::Tensor(index), GGUF_TENSOR_NAME_BYTES_MAX)?;
        let place = Place::Named(&name);
        let dimensions = self.u32(place)?;
        if !(1..=GGUF_DIMENSIONS_MAX).contains(&dimensions) {
            let text =
                format!("expected 1 to {GGUF_DIMENSIONS_MAX} dimensions, found {dimensions}");
            return Err(self.damaged(place, text));
        }
        let mut shape = self.each(dimensions.into(), |header| header.u64(place))?;
        shape.reverse();
        let code = self.u32(place)?;
        let offset = self.u64(place)?;
        let Some(&(_, dtype, ..)) = DTYPES.iter().find(|row| row.0 == code) else {
            let known = OTHER_DTYPES.iter().find(|row| row.0 == code);
            let found = known.map_or(format!("number {code}"), |row| row.1.to_owned());
            return Err(self.error(format_args!(
                "{place} has the type {found}, which the engine can't compute with; \
                 take the model in another quantization, such as Q4_0, Q4_K or Q8_0"
            )));
        };
        let bytes = self.tensor_bytes(place, &shape, dtype)?;
        Ok(TensorInfo { name, shape, dtype, offset, bytes })
    }

    fn tensor_bytes(&self, place: Place<'_>, shape: &[u64], dtype: DType) -> Result<u64> {
        let row = shape.last().copied().unwrap_or(0);
        if shape.contains(&0) {
            return Err(self.damaged(place, "a dimension is 0"));
        }
        if !row.is_multiple_of(dtype.block_size()) {
            let (name, block) = (dtype.name(), dtype.block_size());
            let text = format!("rows of {row} weights aren't whole blocks of {block} ({name})");
            return Err(self.damaged(place, text));
        }
        let elements = shape.iter().try_fold(1u64, |product, &size| product.checked_mul(size));
        elements
            .and_then(|count| (count / dtype.block_size()).checked_mul(dtype.block_bytes()))
            .ok_or_else(|| self.damaged(place, "the dimensions multiply to more than 64 bits hold"))
    }

    /// Makes offsets absolute; each tensor must be aligned, inside the file and apart from others.
    fn placed(&self, tensors: &mut [TensorInfo], alignment: u64) -> Result<()> {
        let data = self.at.next_multiple_of(alignment);
        for tensor in tensors.iter_mut() {
            let place = Place::Named(&tensor.name);
            if !tensor.offset.is_multiple_of(alignment) {
                let text = format!("offset {} is no multiple of {alignment}", tensor.offset);
                return Err(self.damaged(place, text));
            }
            let begin = data.checked_add(tensor.offset);
            let end = begin.and_then(|begin| begin.checked_add(tensor.bytes));
            let (Some(begin), Some(end)) = (begin, end) else {
                return Err(self.damaged(place, "the offset is more than 64 bits hold"));
            };
            if end > self.file_bytes {
                return Err(self.error(format_args!(
                    "{place} ends at byte {end}, the file at byte {}; \
                     the file is cut short: fetch it again",
                    self.file_bytes
                )));
            }
            tensor.offset = begin;
        }
        let mut order: Vec<&TensorInfo> = tensors.iter().collect();
        order.sort_by_key(|tensor| tensor.offset);
        for pair in order.windows(2) {
            if pair[0].offset + pair[0].bytes > pair[1].offset {
                let text = format!("its data overlaps that of tensor '{}'", shown(&pair[0].name));
                return Err(self.damaged(Place::Named(&pair[1].name), text));
            }
        }
        Ok(())
    }

    fn u32(&mut self, place: Place<'_>) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(place)?))
    }

    fn u64(&mut self, place: Place<'_>) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(place)?))
    }

    fn boolean(&mut self, place: Place<'_>) -> Result<bool> {
        match self.array::<1>(place)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [byte] => Err(self.damaged(place, format_args!("expected a boolean, found {byte}"))),
        }
    }

    /// A key or a tensor's name: a text that isn't empty.
    fn name(&mut self, place: Place<'_>, bytes_max: u64) -> Result<String> {
        let name = self.text(place, bytes_max)?;
        if name.is_empty() {
            return Err(self.damaged(place, "expected a name, found an empty text"));
        }
        Ok(name)
    }

    fn text(&mut self, place: Place<'_>, bytes_max: u64) -> Result<String> {
        let length = self.u64(place)?;
        self.bounded(place, "bytes in a text", length, bytes_max)?;
        let bytes = self.bytes(place, length)?;
        String::from_utf8(bytes).map_err(|_| self.damaged(place, "expected UTF-8 in a text"))
    }

    fn array<const N: usize>(&mut self, place: Place<'_>) -> Result<[u8; N]> {
        self.ensure(place, N as u64)?;
        let mut bytes = [0; N];
        self.fill(place, &mut bytes)?;
        Ok(bytes)
    }

    fn bytes(&mut self, place: Place<'_>, length: u64) -> Result<Vec<u8>> {
        self.ensure(place, length)?;
        let mut bytes = vec![0; length as usize];
        self.fill(place, &mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, place: Place<'_>, bytes: &mut [u8]) -> Result<()> {
        self.reader.read_exact(bytes).map_err(|error| {
            self.error(format_args!(
                "{place} at byte {} can't be read: {error}; check the disk or fetch it again",
                self.at
            ))
            .because(error)
        })?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// That `bytes` more can stand here: within the file and within the largest header.
    fn ensure(&self, place: Place<'_>, bytes: u64) -> Result<()> {
        let end = self.at.saturating_add(bytes);
        if end > self.file_bytes {
            return Err(self.error(format_args!(
                "{place} at byte {} needs {bytes} bytes, but the file ends at byte {}; \
                 the file is cut short: fetch it again",
                self.at, self.file_bytes
            )));
        }
        if end > GGUF_HEADER_BYTES_MAX {
            let text = format!("the header is longer than {GGUF_HEADER_BYTES_MAX} bytes");
            return Err(self.damaged(place, text));
        }
        Ok(())
    }

    fn bounded(&self, place: Place<'_>, what: &str, found: u64, most: u64) -> Result<()> {
        if found > most {
            let text = format!("expected at most {most} {what}, found {found}");
            return Err(self.damaged(place, text));
        }
        Ok(())
    }

    fn damaged(&self, place: Place<'_>, problem: impl fmt::Display) -> Error {
        self.error(format_args!(
            "{place}, before byte {}: {problem}; the file is damaged or made wrongly: \
             fetch or convert it again",
            self.at
        ))
    }

    fn error(&self, problem: impl fmt::Display) -> Error {
        Error::new(Kind::Model, format!("{}: {problem}", self.file))
    }
}
