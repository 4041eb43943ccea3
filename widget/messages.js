// What the widget says: terse, because everybody is sent all of it. "{}" is where an address stands.
//
// A language is one line, its texts in the order below. To add one, add a line. English has only
// the first five: why an address is refused comes in English with the answer (gate/api/answer.py).

export const OK = 0;
export const CHECKING = 1;
export const SUGGESTION = 2;
export const ANYWAY = 3;
export const UNDO = 4;
/** Of what is blocked, and what is doubtful, for a reason that has no text of its own. */
export const OTHER = 5;
export const DOUBT = 6;
/** @type {Record<string, number>} */
export const WHY = { invalid_email: 7, invalid_domain: 8, rejected_email: 8, mailbox_full: 9 };

/** @type {Record<string, string>} */
export const MESSAGES = {
  en: "Looks good|Checking…|Did you mean {}?|Use this address anyway|Undo",
  de: "Sieht gut aus|Wird geprüft…|Meinten Sie {}?|Trotzdem verwenden|Rückgängig|Bitte andere Adresse verwenden|Ist die Adresse richtig?|Keine E-Mail-Adresse|Adresse existiert nicht|Postfach voll",
  fr: "C’est bon|Vérification…|Vouliez-vous dire {} ?|Utiliser quand même|Annuler|Utilisez une autre adresse|Cette adresse est correcte ?|Pas une adresse e-mail|Cette adresse n’existe pas|Boîte pleine",
  es: "Todo bien|Comprobando…|¿Quiso decir {}?|Usar igualmente|Deshacer|Use otra dirección|¿Dirección correcta?|No es un e-mail|La dirección no existe|Buzón lleno",
  pt: "Tudo certo|A verificar…|Quis dizer {}?|Usar mesmo assim|Desfazer|Use outro endereço|Endereço correto?|Não é um e-mail|O endereço não existe|Caixa cheia",
  it: "Va bene|Verifica…|Intendevi {}?|Usa comunque|Annulla|Usa un altro indirizzo|Indirizzo corretto?|Non è un’e-mail|L’indirizzo non esiste|Casella piena",
  nl: "Ziet er goed uit|Controleren…|Bedoelde u {}?|Toch gebruiken|Herstellen|Gebruik een ander adres|Klopt dit adres?|Geen e-mailadres|Dit adres bestaat niet|Mailbox vol",
  ar: "جيد|جار التحقق…|هل تقصد {}؟|استخدامه رغم ذلك|تراجع|استخدم عنوانا آخر|هل العنوان صحيح؟|ليس عنوان بريد|هذا العنوان غير موجود|البريد ممتلئ",
};
