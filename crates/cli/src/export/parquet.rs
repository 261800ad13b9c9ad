//! Apache Parquet, uncompressed, through the library's column writers.

use std::io::Write;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use chancery_types::Timestamp;
use parquet::basic::{ConvertedType, Repetition, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::Type;

use super::row::{Row, TEXT_COLUMNS};

/// Gathers rows and writes them in groups.
pub(super) struct Writer<W: Write + Send> {
    file: SerializedFileWriter<W>,
    rows: Vec<Row>,
}

impl<W: Write + Send> Writer<W> {
    pub(super) fn new(output: W) -> Result<Self> {
        let properties = Arc::new(WriterProperties::builder().build());
        let file = SerializedFileWriter::new(output, schema()?, properties)?;
        Ok(Self { file, rows: Vec::new() })
    }

    pub(super) fn write(&mut self, row: &Row) -> Result<()> {
        self.rows.push(row.clone());
        if self.rows.len() >= GROUP { self.flush() } else { Ok(()) }
    }

    pub(super) fn finish(mut self) -> Result<()> {
        self.flush()?;
        self.file.close()?;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let mut group = self.file.next_row_group()?;
        let indexes: Vec<i64> = self
            .rows
            .iter()
            .map(|row| i64::try_from(row.index).context("an index beyond 63 bits"))
            .collect::<Result<_>>()?;
        let mut column = group.next_column()?.context("the schema begins with an index")?;
        column.typed::<Int64Type>().write_batch(&indexes, None, None)?;
        column.close()?;
        for (place, column) in TEXT_COLUMNS.iter().enumerate() {
            let texts = self.rows.iter().map(|row| row.texts[place].as_deref());
            if column.name() == TIME {
                write_times(&mut group, texts)?;
            } else {
                write_texts(&mut group, texts)?;
            }
        }
        let generations =
            self.rows.iter().map(|row| row.generation.and_then(|number| i32::try_from(number).ok()));
        let (levels, values) = optional(generations);
        let mut column = group.next_column()?.context("the schema ends with a generation")?;
        column.typed::<Int32Type>().write_batch(&values, Some(&levels), None)?;
        column.close()?;
        group.close()?;
        self.rows.clear();
        Ok(())
    }
}

fn schema() -> Result<Arc<Type>> {
    let column = |name: &str, physical, converted, repetition| -> Result<Arc<Type>> {
        let column = Type::primitive_type_builder(name, physical)
            .with_converted_type(converted)
            .with_repetition(repetition);
        Ok(Arc::new(column.build()?))
    };
    let mut columns = vec![column("index", Physical::INT64, ConvertedType::NONE, Repetition::REQUIRED)?];
    for text in TEXT_COLUMNS {
        let (physical, converted) = if text.name() == TIME {
            (Physical::INT64, ConvertedType::TIMESTAMP_MILLIS)
        } else {
            (Physical::BYTE_ARRAY, ConvertedType::UTF8)
        };
        columns.push(column(text.name(), physical, converted, Repetition::OPTIONAL)?);
    }
    columns.push(column("generation", Physical::INT32, ConvertedType::NONE, Repetition::OPTIONAL)?);
    Ok(Arc::new(Type::group_type_builder("entry").with_fields(columns).build()?))
}

fn write_times<'a, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    texts: impl Iterator<Item = Option<&'a str>>,
) -> Result<()> {
    let times = texts.map(|text| text.and_then(|text| text.parse::<Timestamp>().ok()).map(Timestamp::millis));
    let (levels, values) = optional(times);
    let mut column = group.next_column()?.context("the schema has a time")?;
    column.typed::<Int64Type>().write_batch(&values, Some(&levels), None)?;
    column.close()?;
    Ok(())
}

fn write_texts<'a, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    texts: impl Iterator<Item = Option<&'a str>>,
) -> Result<()> {
    let (levels, values) = optional(texts.map(|text| text.map(ByteArray::from)));
    let mut column = group.next_column()?.context("the schema has all columns of text")?;
    column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None)?;
    column.close()?;
    Ok(())
}

/// Values that are there, and for each row whether it has one.
fn optional<T>(cells: impl Iterator<Item = Option<T>>) -> (Vec<i16>, Vec<T>) {
    let mut values = Vec::new();
    let levels = cells
        .map(|cell| {
            let level = i16::from(cell.is_some());
            values.extend(cell);
            level
        })
        .collect();
    (levels, values)
}

/// The column that is a time.
const TIME: &str = "time";
/// Rows in a group: some tens of megabytes.
const GROUP: usize = 10_000;
