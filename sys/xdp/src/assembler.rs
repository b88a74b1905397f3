//! An assembler for eBPF (RFC 9669): instructions by their mnemonics, jumps by labels.
//!
//! The destination stands first, as in the RFC: `load(R1, R7, 12, Half)` is `r1 = *(u16 *)(r7 + 12)`.

/// A register. `R0` is what a call or the program returns, `R1` to `R5` are arguments and lost in a call, `R6` to `R9` are kept,
/// `R10` is the end of the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Register {
    R0,
    R1,
    R2,
    R3,
    R6 = 6,
    R7,
    R8,
    R9,
    R10,
}

/// How much memory an instruction loads or stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Size {
    Word = 0x00,
    Half = 0x08,
    Byte = 0x10,
    Double = 0x18,
}

/// Arithmetic; all of it on 64 bits but where a method says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Operation {
    Add = 0x00,
    Multiply = 0x20,
    And = 0x50,
    ShiftRight = 0x70,
    Modulo = 0x90,
    Move = 0xb0,
}

/// When a jump is taken; numbers are unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Condition {
    Equal = 0x10,
    Greater = 0x20,
    NotEqual = 0x50,
    Less = 0xa0,
}

/// A function of the kernel (`enum bpf_func_id`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Helper {
    MapLookup = 1,
    MonotonicTime = 5,
    RedirectMap = 51,
    AdjustMetadata = 54,
}

/// `struct bpf_insn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub(crate) struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const _: () = assert!(cfg!(target_endian = "little"), "the halves of `registers` change places elsewhere");

const CLASS_LOAD_REGISTER: u8 = 0x01;
const CLASS_STORE: u8 = 0x02;
const CLASS_STORE_REGISTER: u8 = 0x03;
const CLASS_ARITHMETIC_32: u8 = 0x04;
const CLASS_JUMP: u8 = 0x05;
const CLASS_ARITHMETIC: u8 = 0x07;
const MODE_MEMORY: u8 = 0x60;
const MODE_ATOMIC: u8 = 0xc0;
const SOURCE_REGISTER: u8 = 0x08;
const BIG_ENDIAN: u8 = 0xd8;
const CALL: u8 = 0x80;
const EXIT: u8 = 0x90;
const LOAD_IMMEDIATE_64: u8 = 0x18;
/// The immediate is a map's descriptor.
const PSEUDO_MAP: u8 = 1;
/// An atomic addition that gives the value before it.
const FETCH: i32 = 1;

/// A program on its way.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    code: Vec<Instruction>,
    labels: Vec<(&'static str, usize)>,
    jumps: Vec<(usize, &'static str)>,
}

impl Assembler {
    fn push(&mut self, code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> &mut Self {
        self.code.push(Instruction { code, registers: destination | source << 4, offset, immediate });
        self
    }

    /// `to = *(from + offset)`.
    pub(crate) fn load(&mut self, to: Register, from: Register, offset: i16, size: Size) -> &mut Self {
        self.push(MODE_MEMORY | size as u8 | CLASS_LOAD_REGISTER, to as u8, from as u8, offset, 0)
    }

    /// `*(to + offset) = from`.
    pub(crate) fn store(&mut self, to: Register, offset: i16, from: Register, size: Size) -> &mut Self {
        self.push(MODE_MEMORY | size as u8 | CLASS_STORE_REGISTER, to as u8, from as u8, offset, 0)
    }

    /// `*(to + offset) = value`.
    pub(crate) fn store_value(&mut self, to: Register, offset: i16, value: i32, size: Size) -> &mut Self {
        self.push(MODE_MEMORY | size as u8 | CLASS_STORE, to as u8, 0, offset, value)
    }

    /// `to = to <operation> value`.
    pub(crate) fn value(&mut self, operation: Operation, to: Register, value: i32) -> &mut Self {
        self.push(operation as u8 | CLASS_ARITHMETIC, to as u8, 0, 0, value)
    }

    /// The same on the lower 32 bits; the upper ones become 0.
    pub(crate) fn value_32(&mut self, operation: Operation, to: Register, value: i32) -> &mut Self {
        self.push(operation as u8 | CLASS_ARITHMETIC_32, to as u8, 0, 0, value)
    }

    /// `to = from`.
    pub(crate) fn copy(&mut self, to: Register, from: Register) -> &mut Self {
        self.push(Operation::Move as u8 | SOURCE_REGISTER | CLASS_ARITHMETIC, to as u8, from as u8, 0, 0)
    }

    /// `to = from + value`: an address.
    pub(crate) fn address(&mut self, to: Register, from: Register, value: i32) -> &mut Self {
        self.copy(to, from).value(Operation::Add, to, value)
    }

    /// The lower bits of `register`, from the network's byte order into the processor's.
    pub(crate) fn network_order(&mut self, register: Register, bits: i32) -> &mut Self {
        self.push(BIG_ENDIAN | CLASS_ARITHMETIC_32, register as u8, 0, 0, bits)
    }

    /// `*(to + offset) += by`, at once for all processors; `by` is then what stood there before.
    pub(crate) fn fetch_add(&mut self, to: Register, offset: i16, by: Register) -> &mut Self {
        self.push(MODE_ATOMIC | Size::Double as u8 | CLASS_STORE_REGISTER, to as u8, by as u8, offset, FETCH)
    }

    /// Jumps to `label` if `left` compares to `right`.
    pub(crate) fn jump_if(
        &mut self,
        left: Register,
        condition: Condition,
        right: Register,
        label: &'static str,
    ) -> &mut Self {
        self.jumps.push((self.code.len(), label));
        self.push(condition as u8 | SOURCE_REGISTER | CLASS_JUMP, left as u8, right as u8, 0, 0)
    }

    /// Jumps to `label` if `left` compares to a value.
    pub(crate) fn jump_if_value(
        &mut self,
        left: Register,
        condition: Condition,
        right: i32,
        label: &'static str,
    ) -> &mut Self {
        self.jumps.push((self.code.len(), label));
        self.push(condition as u8 | CLASS_JUMP, left as u8, 0, 0, right)
    }

    /// Jumps to `label`.
    pub(crate) fn jump(&mut self, label: &'static str) -> &mut Self {
        self.jumps.push((self.code.len(), label));
        self.push(CLASS_JUMP, 0, 0, 0, 0)
    }

    /// Here is `label`.
    pub(crate) fn label(&mut self, label: &'static str) -> &mut Self {
        self.labels.push((label, self.code.len()));
        self
    }

    /// `to` = the map with this descriptor.
    pub(crate) fn map(&mut self, to: Register, descriptor: i32) -> &mut Self {
        self.push(LOAD_IMMEDIATE_64, to as u8, PSEUDO_MAP, 0, descriptor).push(0, 0, 0, 0, 0)
    }

    /// Calls a function of the kernel.
    pub(crate) fn call(&mut self, helper: Helper) -> &mut Self {
        self.push(CALL | CLASS_JUMP, 0, 0, 0, helper as i32)
    }

    /// Returns `R0`.
    pub(crate) fn exit(&mut self) -> &mut Self {
        self.push(EXIT | CLASS_JUMP, 0, 0, 0, 0)
    }

    /// The program, every jump with its distance.
    ///
    /// # Panics
    ///
    /// If a label is missing: a fault of the program's text, whatever it is run on.
    pub(crate) fn finish(mut self) -> Vec<Instruction> {
        for (from, label) in self.jumps {
            let found = self.labels.iter().find(|(name, _)| *name == label);
            let (_, to) = found.unwrap_or_else(|| panic!("there is no label {label}"));
            // From the instruction behind the jump.
            self.code[from].offset = i16::try_from(*to as isize - from as isize - 1).expect("a short program");
        }
        self.code
    }
}

#[cfg(test)]
mod tests {
    use super::Register::*;
    use super::*;

    fn bytes(program: &[Instruction]) -> Vec<[u8; 8]> {
        let of = |it: &Instruction| {
            let [a, b] = it.offset.to_le_bytes();
            let [c, d, e, f] = it.immediate.to_le_bytes();
            [it.code, it.registers, a, b, c, d, e, f]
        };
        program.iter().map(of).collect()
    }

    #[test]
    fn instructions_have_the_bytes_of_the_standard() {
        let mut program = Assembler::default();
        program
            .load(R1, R7, 12, Size::Half)
            .store(R10, -8, R1, Size::Word)
            .store_value(R10, -6, 0, Size::Half)
            .value(Operation::Add, R2, -24)
            .value_32(Operation::Multiply, R1, 7)
            .copy(R6, R1)
            .network_order(R1, 16)
            .fetch_add(R7, 64, R2)
            .map(R1, 5)
            .call(Helper::RedirectMap)
            .exit();
        let expected = [
            [0x69, 0x71, 12, 0, 0, 0, 0, 0],
            [0x63, 0x1a, 0xf8, 0xff, 0, 0, 0, 0],
            [0x6a, 0x0a, 0xfa, 0xff, 0, 0, 0, 0],
            [0x07, 0x02, 0, 0, 0xe8, 0xff, 0xff, 0xff],
            [0x24, 0x01, 0, 0, 7, 0, 0, 0],
            [0xbf, 0x16, 0, 0, 0, 0, 0, 0],
            [0xdc, 0x01, 0, 0, 16, 0, 0, 0],
            [0xdb, 0x27, 64, 0, 1, 0, 0, 0],
            [0x18, 0x11, 0, 0, 5, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, 0, 0],
            [0x85, 0, 0, 0, 51, 0, 0, 0],
            [0x95, 0, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(bytes(&program.finish()), expected);
    }

    #[test]
    fn jumps_reach_their_labels_forwards_and_backwards() {
        let mut program = Assembler::default();
        program.label("again").jump_if_value(R1, Condition::NotEqual, 3, "end").jump_if(
            R1,
            Condition::Less,
            R2,
            "again",
        );
        program.jump("end").exit().label("end").exit();
        let offsets: Vec<i16> = program.finish().iter().map(|it| it.offset).collect();
        assert_eq!(offsets, [3, -2, 1, 0, 0]);
    }

    #[test]
    #[should_panic(expected = "there is no label nowhere")]
    fn a_label_that_is_missing_is_named() {
        let mut program = Assembler::default();
        program.jump("nowhere");
        program.finish();
    }
}
