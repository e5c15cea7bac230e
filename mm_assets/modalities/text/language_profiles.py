"""What the language guess knows, as data: scripts, and frequent words, endings and letters of Latin-script languages.

A module rather than a data file, so that a change enters the stage's code digest.
"""

#: Script of a letter (first word of its Unicode name) -> language, where the script nearly decides it.
SCRIPTS = {
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "HANGUL": "ko",
    "CJK": "zh",
    "CYRILLIC": "ru",
    "ARABIC": "ar",
    "GREEK": "el",
    "HEBREW": "he",
    "THAI": "th",
    "DEVANAGARI": "hi",
    "BENGALI": "bn",
    "TAMIL": "ta",
    "TELUGU": "te",
    "GEORGIAN": "ka",
    "ARMENIAN": "hy",
}

#: Letters that move a text from the script's usual language to another one.
SCRIPT_LETTERS = {"ARABIC": {"fa": "پچژگیک"}, "CYRILLIC": {"uk": "іїєґ", "bg": "ъ"}}

#: Latin script: frequent words.
WORDS = {
    "en": "the of and to in is it with for on that this are was be as at by from or an has have not you face "
    "woman man person hand button white black red up down left right person's two light big small old new "
    "open closed",
    "de": "der die das und mit von in auf für ist ein eine nicht den dem des im zu am aus gesicht frau mann "
    "person hand zwei nach rechts links oben unten kleiner schwarzer weißer roter großer sind wird auch "
    "bei",
    "fr": "le la les de des du et à en un une avec sur pour dans est qui que au aux pas visage femme homme "
    "personne main drapeau bouton noir blanc rouge petit grand vers deux tête sans sont ce il elle",
    "es": "el la los las de del y en un una con por para que es se su al no cara mujer hombre persona mano "
    "bandera botón negro blanco rojo pequeño grande hacia dos cabeza sin son como más pero",
    "pt": "o a os as de do da dos das e em um uma com por para que é não no na ao rosto mulher homem pessoa mão "
    "bandeira botão preto branco vermelho pequeno grande dois cabeça sem são como mais mas",
    "it": "il lo la i gli le di del della dei e in un una uno con per che è non al alla nel faccina donna uomo "
    "persona mano bandiera pulsante nero bianco rosso piccolo grande verso due testa senza sono come più "
    "ma",
    "nl": "de het een en van in op met voor is niet dat te aan er zijn die gezicht vrouw man persoon hand vlag "
    "knop zwart wit rood klein groot naar twee hoofd zonder ook bij uit",
    "id": "dan di yang dengan ke dari untuk ini itu tidak pada adalah wajah wanita pria orang tangan bendera "
    "tombol hitam putih merah kecil besar dua kepala tanpa warna sedang atau kulit",
    "tr": "ve bir bu da de için ile çok ne gibi daha yüz kadın erkek adam kişi el bayrak düğme siyah beyaz "
    "kırmızı küçük büyük iki baş olan yüzü işareti var mi",
    "pl": "i w z na do się nie jest to że jak po od dla przez twarz kobieta mężczyzna osoba ręka flaga przycisk "
    "czarny biały czerwony mały duży dwa głowa bez oraz przy",
    "sv": "och i att det som en ett på är av för med den till inte har ansikte kvinna man person hand flagga "
    "knapp svart vit röd liten stor två huvud utan eller från",
    "vi": "và của là có không một những được cho với trong người mặt phụ nữ đàn ông tay cờ nút đen trắng đỏ nhỏ "
    "lớn hai",
}

#: Latin script: letter groups that are frequent in the language and rarer in the others; ``_`` is a word boundary.
GROUPS = {
    "en": "th_ _th ing ed_ _wh igh ck_ tion sh_ wn_ ee oo ght ow_ ey_ ay_ _kn ly_ nd_ ous",
    "de": "sch ich ein en_ er_ ung cht ge_ _ge _ver heit keit ei tz_ pf ß ie_ _zw ck isch lich ör ück",
    "fr": "eau oux eux ion_ ment _d' _l' ais ait que_ oi ou_ é_ ée_ ez_ ant_ eur aux eil ouge elle ille",
    "es": "ción ñ ue_ ando iendo dor_ ado_ ada_ os_ as_ ll ie ía _es illo ito_ uer ón_ jo_",
    "pt": "ção ções ão_ õe nh lh ndo_ eiro eira ado_ ada_ os_ as_ ei_ _ch em_ inho ém_ que",
    "it": "zione gli gn cch _sc tto_ tta_ ello ella che_ chi_ ato_ ata_ ino_ ini_ zz ggi uo io_ nte_ cia",
    "nl": "ij _ge aa een_ oo uu en_ ijk _ver lijk je_ sch cht ui ee_ oe _he tje",
    "id": "ang_ an_ ng_ _me _ber _ter _di _pe nya_ kan_ _ke uk_ ah_ eng ata_ _se uh_ ya",
    "tr": "lar_ ler_ ş ğ ı_ lı_ li_ an_ en_ mak mek yor dır dir ık_ ük ü_ ayan eyen ını",
    "pl": "rz sz cz ow_ ie_ ów ski ł ą ę ś ź ż ć nie_ ek_ owy prz ych_",
    "sv": "ä å ö ning ande_ ar_ or_ _sk tt_ ck_ en_ et_ lig isk mm",
    "vi": "ng_ nh_ ư ơ đ ạ ả ấ ầ ộ ờ ữ uy ươ iê",
}

#: Latin script: letters that only some of the languages use.
LETTERS = {
    "de": "äöüß",
    "fr": "çœèêëîïôùûÿàâé",
    "es": "ñ¿¡áíóú",
    "pt": "ãõçâêôáíú",
    "it": "òìùàè",
    "tr": "şğıçöü",
    "pl": "łąęśźżćńó",
    "sv": "åäö",
    "vi": "đươạảấầậẩẫắằặẳẵẹẻẽếềệểễỉịọỏốồộổỗớờợởỡụủứừựửữỳỵỷỹ",
}
