//! The macro by which a C structure is laid out: fields in order, little-endian, padding written out.

/// Declares a structure of integers with the memory layout of its C twin on x86-64 Linux, and its conversion
/// to and from bytes. Padding is declared as a field, so that nothing of the kernel's memory leaks through it.
macro_rules! abi_struct {
    ($(#[$meta:meta])* pub struct $name:ident = $size:literal { $($(#[$fmeta:meta])* $field:ident : $ty:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[allow(missing_docs)] // fields carry the names of the C structure
        pub struct $name { $($(#[$fmeta])* pub $field: $ty,)* }

        impl $name {
            /// Size of the structure in user memory, in bytes.
            pub const SIZE: usize = $size;

            /// The structure as it lies in user memory.
            pub fn to_bytes(&self) -> [u8; $size] {
                let mut out = [0u8; $size];
                let mut at = 0;
                $({
                    const N: usize = core::mem::size_of::<$ty>();
                    out[at..at + N].copy_from_slice(&self.$field.to_le_bytes());
                    at += N;
                })*
                debug_assert_eq!(at, $size);
                out
            }

            /// Reads the structure as it lies in user memory.
            pub fn from_bytes(bytes: &[u8; $size]) -> Self {
                let mut at = 0;
                $(
                    let $field = {
                        const N: usize = core::mem::size_of::<$ty>();
                        let mut field = [0u8; N];
                        field.copy_from_slice(&bytes[at..at + N]);
                        at += N;
                        <$ty>::from_le_bytes(field)
                    };
                )*
                debug_assert_eq!(at, $size);
                $name { $($field,)* }
            }
        }

        const _: () = assert!(0 $(+ core::mem::size_of::<$ty>())* == $size);
    };
}
pub(crate) use abi_struct;
