//! Two pictures: what each row costs beside the first proxy, and how open rows' latencies spread.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use plotters::prelude::*;

use super::row::Row;
use super::spread::short;
use crate::peer::Peer;
use crate::work::Mode;

/// Okabe and Ito's colours, which colour-blind readers tell apart.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
];
const WIDTH: i32 = 1000;
const LABELS_WIDTH: i32 = 290;
/// Room for the figure behind the longest bar.
const FIGURES_WIDTH: i32 = 130;
const BAR: i32 = 11;
const ROW_GAP: i32 = 9;
const HEAD: i32 = 60;
/// A bar of this ratio fills the width; longer ones are cut and say so.
const RATIO_MAX: f64 = 5.0;

type Svg<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// `NAME.svg`, and `NAME-latency.svg` where there are open rows. Nothing to set beside each other,
/// no picture.
pub(crate) fn write(
    dir: &Path,
    name: &str,
    peers: &[Peer],
    rows: &[Row],
) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let comparable: Vec<_> = rows.iter().filter(|row| row.figure(0).is_some()).collect();
    if peers.len() > 1 && !comparable.is_empty() {
        let file = dir.join(format!("{name}.svg"));
        costs(&file, peers, &comparable).map_err(|error| unwritable(&file, &error))?;
        files.push(file);
    }
    let is_open = |row: &&Row| matches!(row.case.work.mode, Mode::Open(_));
    let open: Vec<_> = rows.iter().filter(is_open).collect();
    if !open.is_empty() {
        let file = dir.join(format!("{name}-latency.svg"));
        latencies(&file, peers, &open).map_err(|error| unwritable(&file, &error))?;
        files.push(file);
    }
    Ok(files)
}

/// plotters' own errors hold their backend's and cannot all be sent on.
type Failure = Box<dyn std::error::Error>;

fn unwritable(file: &Path, error: &Failure) -> anyhow::Error {
    anyhow!("cannot draw {}: {error}", file.display())
}

/// A bar for each proxy and row, as long as its figure is beside the first proxy's.
fn costs(file: &Path, peers: &[Peer], rows: &[&Row]) -> Result<(), Failure> {
    let bars: Vec<_> = rows.iter().map(|row| measured(row)).collect();
    let height = |bars: &Vec<usize>| i32::try_from(bars.len()).map(|count| count * BAR + ROW_GAP);
    let heights: Vec<_> = bars.iter().map(height).collect::<Result<_, _>>()?;
    let bottom = HEAD + heights.iter().sum::<i32>();
    let area = SVGBackend::new(file, (WIDTH.try_into()?, bottom.try_into()?)).into_drawing_area();
    area.fill(&WHITE)?;
    let title = format!("Cost beside {} (1.0): shorter is cheaper", peers[0].label);
    area.draw(&Text::new(title, (10, 10), ("sans-serif", 20)))?;
    legend(&area, peers)?;
    let mut top = HEAD;
    for ((row, bars), height) in rows.iter().zip(bars).zip(heights) {
        let name = row.case.name.as_str();
        area.draw(&Text::new(name, (10, top), ("sans-serif", 14)))?;
        for (peer, bar_top) in bars.into_iter().zip((top..).step_by(BAR.try_into()?)) {
            bar(&area, row, peer, bar_top)?;
        }
        top += height;
    }
    let one = LABELS_WIDTH + bar_length(1.0);
    area.draw(&PathElement::new(
        [(one, HEAD - 4), (one, bottom)],
        BLACK.mix(0.4),
    ))?;
    area.present()?;
    Ok(())
}

/// The proxies that have a figure to draw.
fn measured(row: &Row) -> Vec<usize> {
    (0..row.records.len())
        .filter(|peer| row.ratio(*peer).is_some())
        .collect()
}

fn legend(area: &Svg<'_>, peers: &[Peer]) -> Result<(), Failure> {
    let step = (WIDTH - 20) / i32::try_from(peers.len())?.max(1);
    for (index, peer) in peers.iter().enumerate() {
        let left = 10 + step * i32::try_from(index)?;
        area.draw(&Rectangle::new(
            [(left, 36), (left + 12, 46)],
            colour(index).filled(),
        ))?;
        area.draw(&Text::new(
            peer.label.as_str(),
            (left + 17, 35),
            ("sans-serif", 15),
        ))?;
    }
    Ok(())
}

fn bar(area: &Svg<'_>, row: &Row, peer: usize, top: i32) -> Result<(), Failure> {
    let (Some(figure), Some(ratio)) = (row.figure(peer), row.ratio(peer)) else {
        return Ok(());
    };
    let end = LABELS_WIDTH + bar_length(ratio.median);
    area.draw(&Rectangle::new(
        [(LABELS_WIDTH, top), (end, top + BAR - 1)],
        colour(peer).filled(),
    ))?;
    let beyond = if ratio.median > RATIO_MAX { "… " } else { "" };
    let text = format!(
        "{beyond}{} {}",
        short(figure.median),
        row.case.work.mode.unit()
    );
    area.draw(&Text::new(text, (end + 4, top), ("sans-serif", 12)))?;
    Ok(())
}

/// Pixels from 1 to what is there; `ratio` is of two measured figures.
#[expect(
    clippy::cast_possible_truncation,
    reason = "at most the picture's width"
)]
fn bar_length(ratio: f64) -> i32 {
    let full = f64::from(WIDTH - LABELS_WIDTH - FIGURES_WIDTH);
    (full * ratio.clamp(0.0, RATIO_MAX) / RATIO_MAX).max(1.0) as i32
}

fn colour(peer: usize) -> RGBColor {
    COLOURS[peer % COLOURS.len()]
}

const LATENCY_HEIGHT: i32 = 420;
/// p99.99, as far as a run of some thousand operations can say.
const NINES_MAX: f64 = 4.0;

/// One chart for each open row: microseconds over the percentile, the tail stretched by its nines.
fn latencies(file: &Path, peers: &[Peer], rows: &[&Row]) -> Result<(), Failure> {
    let height = LATENCY_HEIGHT * i32::try_from(rows.len())?;
    let area = SVGBackend::new(file, (WIDTH.try_into()?, height.try_into()?)).into_drawing_area();
    area.fill(&WHITE)?;
    for (row, part) in rows.iter().zip(area.split_evenly((rows.len(), 1))) {
        let curves: Vec<_> = (0..peers.len()).map(|peer| curve(row, peer)).collect();
        let highest = curves.iter().flatten().map(|point| point.1);
        let highest = highest.fold(100.0, f64::max);
        let mut chart = ChartBuilder::on(&part)
            .caption(row.case.name.as_str(), ("sans-serif", 20))
            .margin(12)
            .margin_right(40)
            .x_label_area_size(28)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..NINES_MAX, (10.0..highest * 2.0).log_scale())?;
        chart
            .configure_mesh()
            .x_labels(5)
            .x_label_formatter(&|nines| percentile(*nines))
            .y_label_formatter(&|us| format!("{us:.0} us"))
            .draw()?;
        for (index, (peer, curve)) in peers.iter().zip(curves).enumerate() {
            let style = colour(index).stroke_width(2);
            chart
                .draw_series(LineSeries::new(curve, style))?
                .label(peer.label.as_str())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK)
            .draw()?;
    }
    area.present()?;
    Ok(())
}

/// (nines, microseconds): 0 is the shortest, 1 is p90, 2 is p99.
fn curve(row: &Row, peer: usize) -> Vec<(f64, f64)> {
    const STEPS_PER_NINE: u32 = 20;
    let histogram = row.latencies(peer).first_byte;
    if histogram.is_empty() {
        return Vec::new();
    }
    (0..=4 * STEPS_PER_NINE)
        .map(|step| {
            let nines = f64::from(step) / f64::from(STEPS_PER_NINE);
            let quantile = 1.0 - 10.0_f64.powf(-nines);
            (nines, histogram.value_at_quantile(quantile) as f64 / 1000.0)
        })
        .collect()
}

fn percentile(nines: f64) -> String {
    let percent = 100.0 * (1.0 - 10.0_f64.powf(-nines));
    match nines {
        ..=2.0 => format!("p{percent:.0}"),
        _ => format!("p{percent:.2}").trim_end_matches('0').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_ratio_and_never_leave_the_picture() {
        assert_eq!(bar_length(2.0), 2 * bar_length(1.0));
        assert_eq!(bar_length(50.0), bar_length(RATIO_MAX));
        assert!(bar_length(0.0) > 0);
    }

    #[test]
    fn nines_are_named_as_percentiles() {
        let names: Vec<_> = [0.0, 1.0, 2.0, 3.0, 4.0].map(percentile).into();
        assert_eq!(names, ["p0", "p90", "p99", "p99.9", "p99.99"]);
    }
}
